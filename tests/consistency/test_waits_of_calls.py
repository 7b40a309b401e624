"""Whoever hears from a call that a right is taken away may rely on it: from a first call, a retry, and a refusal that says that
it is so already."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import uuid4

import pytest
import pytest_asyncio
from lictor.license.v1.license_service_pb2 import RevokeLicenseRequest, SuspendLicenseRequest

from shared.clock import SystemClock
from shared.embedded.postgres import EmbeddedPostgres
from shared.facts.license import Wanted
from shared.rpc import effects
from shared.tenancy import Mode, Tenant
from tests.consistency.stage import Process, process_on
from tests.helpers.builders import open_shop, refused, send
from tests.helpers.record import OwnRecord, Scratch, scratch
from tests.helpers.redis_tier import TurnedClock
from tests.helpers.suite import Suite, World, running_suite

L_MS = 800


class RealClock(TurnedClock):
    """Calls wait for real time."""

    def boottime(self) -> float:
        return SystemClock().boottime()


@dataclass(frozen=True)
class Own:
    """A suite with a record of its own, on which leases are as long as in production and longer."""

    scratch: Scratch
    suite: Suite
    world: World


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="own")
async def _own(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Own]:
    async with scratch(postgres, migrated=False) as made:
        folder = tmp_path_factory.mktemp("waits")
        async with running_suite(OwnRecord(made), folder, l_ms=L_MS) as suite, suite.world() as world:
            yield Own(made, suite, world)


@dataclass(frozen=True)
class Scene:
    """A license that another process has in memory, under a lease that began right before it was taken away."""

    own: Own
    other: Process
    license_id: str

    async def taken_away(self) -> str:
        """Revokes it by a call that does not wait; the id of its request."""
        request_id = str(uuid4())
        await self.send(RevokeLicenseRequest(request_id=request_id, return_before_effective=True))
        return request_id

    async def send(self, request: RevokeLicenseRequest | SuspendLicenseRequest) -> None:
        request.license_id = self.license_id
        await send(self.own.suite, request, self.own.world.test_key)

    def is_still_valid_elsewhere(self) -> bool:
        """Whether the other process would answer so at this moment, without asking anybody."""
        tenant = Tenant(self.own.world.account_id, Mode.TEST)
        held = self.other.licenses.held(tenant, Wanted((), self.license_id))
        return held is not None and held.facts is not None and held.facts.status == "active"


@pytest_asyncio.fixture(loop_scope="session", name="scene")
async def _scene(own: Own) -> AsyncGenerator[Scene]:
    shop = await open_shop(own.world.test, code=f"S{uuid4().hex[:10].upper()}")
    license_id = (await shop.issue()).license.license_id
    async with process_on(own.scratch, clock=RealClock()) as other:
        scene = Scene(own, other, license_id)
        await other.licenses.one(own.world.tenant(), Wanted((), license_id))
        await other.poll()
        assert scene.is_still_valid_elsewhere()
        yield scene


@pytest.fixture(name="unsafe", params=[False, True], ids=["waiting", "not waiting"])
def _unsafe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The safeguard on, and off: calls do not wait."""
    off: bool = request.param

    async def at_once(self: effects.EffectWaits) -> None:
        pass

    if off:
        monkeypatch.setattr(effects.EffectWaits, "hold", at_once)
    return off


async def test_after_a_revocation(scene: Scene, unsafe: bool) -> None:
    await scene.send(RevokeLicenseRequest())
    assert scene.is_still_valid_elsewhere() is unsafe


async def test_after_a_retry_of_one_that_did_not_wait(scene: Scene, unsafe: bool) -> None:
    """Its process may have died while it waited."""
    request_id = await scene.taken_away()
    assert scene.is_still_valid_elsewhere()
    await scene.send(RevokeLicenseRequest(request_id=request_id))
    assert scene.is_still_valid_elsewhere() is unsafe


async def test_after_a_refusal_since_it_is_so_already(scene: Scene, unsafe: bool) -> None:
    await scene.taken_away()
    assert scene.is_still_valid_elsewhere()
    request = SuspendLicenseRequest(license_id=scene.license_id)
    found = await refused(scene.own.suite, request, scene.own.world.test_key)
    assert found.info.reason == "STATE_TRANSITION_INVALID"
    assert scene.is_still_valid_elsewhere() is unsafe
