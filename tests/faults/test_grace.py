"""The record is away: where a license's policy allows it validations go on from memory, for so long and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from lictor.common.v1.common_pb2 import Consistency, Freshness, LicenseSelector, RevisionToken, View
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.license.v1.validation_service_pb2 import (
    BatchValidateLicensesRequest,
    ExplainValidationRequest,
    ValidateLicenseRequest,
    ValidateLicenseResponse,
    ValidationCode,
)
from pydantic import SecretStr

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import Shop, open_shop, refused, send
from tests.helpers.embedded import kill, paused, state_directory
from tests.helpers.links import Link, link_to
from tests.helpers.serving import counted, until
from tests.helpers.suite import Suite, World, running_suite

HOUR: Final = timedelta(hours=1)
AWAY: Final = (grpc.StatusCode.UNAVAILABLE, "RECORD_UNREACHABLE")
GRACE, LEASED = Freshness.Source.GRACE, Freshness.Source.LEASED


@pytest.fixture(scope="module", name="server")
def _server() -> Generator[EmbeddedPostgres]:
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="own_suite")
async def _own_suite(server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Suite]:
    async with running_suite(server, tmp_path_factory.mktemp("grace")) as running:
        yield running


@dataclass(frozen=True)
class Scene:
    """A shop whose policy allows an hour, and a license of it."""

    suite: Suite
    world: World
    shop: Shop
    key: str
    license_id: str

    def request(self, **more: Any) -> ValidateLicenseRequest:
        return ValidateLicenseRequest(license=LicenseSelector(license_key=self.key), **more)

    async def validate(self, within_s: float = 10.0, **more: Any) -> ValidateLicenseResponse:
        return await send(self.suite, self.request(**more), self.world.test_key, within_s)

    async def refused(self, request: Any, key: str = "") -> tuple[grpc.StatusCode, str]:
        told = await refused(self.suite, request, key or self.world.test_key)
        assert told.retry_ms == 250
        return told.code, told.reason

    async def warm(self) -> None:
        """Until memory answers."""

        async def leased() -> bool:
            return (await self.validate()).decision.freshness == LEASED

        await until(leased)


@asynccontextmanager
async def scene_of(suite: Suite, span: timedelta = HOUR) -> AsyncGenerator[Scene]:
    async with suite.world() as world:
        shop = await open_shop(world.test, stale_ok_for=span)
        made = await shop.issue()
        yield Scene(suite, world, shop, made.key, made.license.license_id)


@pytest_asyncio.fixture(loop_scope="session", name="scene")
async def _scene(own_suite: Suite) -> AsyncGenerator[Scene]:
    async with scene_of(own_suite) as made:
        yield made


@asynccontextmanager
async def down(server: EmbeddedPostgres) -> AsyncGenerator[None]:
    """Killed, and back after the block."""
    await asyncio.to_thread(kill, server)
    try:
        yield
    finally:
        await asyncio.to_thread(server.restart)


def code_of(answer: ValidateLicenseResponse) -> str:
    return ValidationCode.Code.Name(answer.code)


async def back(scene: Scene) -> None:
    """Until calls are answered as ever, which they are by themselves."""

    async def answered() -> bool:
        try:
            return (await scene.validate()).decision.freshness != GRACE
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False

    await until(answered, 10)


async def test_validations_go_on_and_say_so(server: EmbeddedPostgres, scene: Scene) -> None:
    await scene.warm()
    before = (await scene.validate()).decision
    assert not before.degraded
    assert not before.HasField("stale_ok_until")
    given, over = (
        await counted(scene.suite, "lictor_validations_total", freshness="GRACE"),
        await counted(scene.suite, "lictor_lease_over_total"),
    )
    async with down(server):
        for _ in range(3):
            begun = time.monotonic()
            answer = await scene.validate()
            assert time.monotonic() - begun < 1
            assert (answer.valid, code_of(answer), answer.license_id) == (True, "VALID", scene.license_id)
            decision = answer.decision
            assert (decision.freshness, decision.degraded) == (GRACE, True)
            assert decision.evaluated_at.ToNanoseconds() >= before.evaluated_at.ToNanoseconds()
            until_ = decision.stale_ok_until.ToDatetime(tzinfo=UTC)
            assert until_ == decision.evaluated_at.ToDatetime(tzinfo=UTC) + HOUR
            assert timedelta(minutes=59) < until_ - datetime.now(UTC) < HOUR
        assert await counted(scene.suite, "lictor_validations_total", freshness="GRACE") == given + 3
        assert await counted(scene.suite, "lictor_lease_over_total") > over
        assert await counted(scene.suite, "lictor_tail_state_age_seconds") > 0.02
    await back(scene)
    assert not (await scene.validate()).decision.degraded
    async with scene.suite.admin() as admin:
        marks = "SELECT last_validated_at FROM license.license_usage WHERE license_id = $1"
        assert await admin.fetchval(marks, scene.license_id) is None


async def test_whoever_has_not_opted_in_is_told_that_the_record_is_away(server: EmbeddedPostgres, scene: Scene) -> None:
    other = await scene.world.test.policies.create(
        product_id=scene.shop.product.product_id, display_name="strict", max_machines=1, require_fingerprint=False
    )
    strict = (await scene.world.test.licenses.create(policy_id=other.policy.policy_id)).license.license_id
    request = ValidateLicenseRequest(license=LicenseSelector(license_id=strict))
    await scene.warm()
    await send(scene.suite, request, scene.world.test_key)
    async with down(server):
        assert (await scene.validate()).decision.freshness == GRACE
        for _ in range(2):
            assert await scene.refused(request) == AWAY
            assert await scene.refused(BatchValidateLicensesRequest(requests=[request, request])) == AWAY
    await back(scene)


async def test_nothing_but_a_plain_validation_is_answered(server: EmbeddedPostgres, scene: Scene) -> None:
    counted_policy = await scene.world.test.policies.create(
        product_id=scene.shop.product.product_id, display_name="c", max_machines=1, max_uses=5, stale_ok_for=HOUR,
        require_fingerprint=False,
    )  # fmt: skip
    limited = await scene.world.test.licenses.create(policy_id=counted_policy.policy.policy_id)
    revoked = await scene.world.test.api_keys.create(scopes=["licenses:validate"])
    never_seen = await scene.world.test.api_keys.create(scopes=["licenses:validate"])
    await scene.warm()
    for key in (scene.world.test_key, revoked.secret):
        await send(scene.suite, scene.request(), key)
        await send(scene.suite, ValidateLicenseRequest(license=LicenseSelector(license_key=limited.key)), key)
        await send(scene.suite, ValidateLicenseRequest(license=LicenseSelector(license_key="UNKNOWN-1234")), key)
    written = await scene.world.test.api_keys.revoke(revoked.api_key.api_key_id)
    token = RevisionToken(token=written.revision_token.token)
    known = Consistency(at_least_as_fresh=Consistency.AtLeastAsFresh(revision_token=token))
    await scene.warm()
    async with down(server):
        assert (await scene.validate()).decision.freshness == GRACE
        assert (await scene.validate(consistency=known)).decision.freshness == GRACE
        refusals: dict[str, Any] = {
            "the record is asked for": scene.request(
                consistency=Consistency(fully_consistent=Consistency.FullyConsistent())
            ),
            "the license is asked for": scene.request(view=View.BASIC),
            "all of it": scene.request(view=View.FULL),
            "the record counts": ValidateLicenseRequest(license=LicenseSelector(license_key=limited.key)),
            "no such license": ValidateLicenseRequest(license=LicenseSelector(license_key="UNKNOWN-1234")),
            "not in memory": ValidateLicenseRequest(license=LicenseSelector(license_id=scene.license_id + "x")),
            "explain": ExplainValidationRequest(validation=scene.request()),
            "get": licenses.GetLicenseRequest(license_id=scene.license_id),
            "list": licenses.ListLicensesRequest(),
            "suspend": licenses.SuspendLicenseRequest(license_id=scene.license_id),
            "count": licenses.IncrementUsesRequest(license_id=scene.license_id, uses=1),
            "check in": licenses.CheckInLicenseRequest(license_id=scene.license_id),
        }
        for what, request in refusals.items():
            assert await scene.refused(request) == AWAY, what
        assert await scene.refused(scene.request(), revoked.secret) == AWAY
        assert await scene.refused(scene.request(), never_seen.secret) == AWAY
    await back(scene)


async def test_each_of_a_batch_is_answered_or_refused_for_itself(server: EmbeddedPostgres, scene: Scene) -> None:
    other = await scene.world.test.policies.create(
        product_id=scene.shop.product.product_id, display_name="strict", max_machines=1, require_fingerprint=False
    )
    strict = await scene.world.test.licenses.create(policy_id=other.policy.policy_id)
    wanted = [scene.key, strict.key, "UNKNOWN-1234", scene.key]
    batch = BatchValidateLicensesRequest(
        requests=[ValidateLicenseRequest(license=LicenseSelector(license_key=key)) for key in wanted]
    )
    await scene.warm()
    assert len((await send(scene.suite, batch, scene.world.test_key)).results) == 4
    async with down(server):
        results = (await send(scene.suite, batch, scene.world.test_key)).results
        assert [one.response.decision.freshness for one in results] == [GRACE, 0, 0, GRACE]
        assert [one.status.code for one in results] == [0, 14, 14, 0]
        assert results[0].response.valid
        batch.view = View.BASIC
        assert await scene.refused(batch) == AWAY
    await back(scene)


async def test_a_right_that_was_taken_before_stays_taken(server: EmbeddedPostgres, scene: Scene) -> None:
    await scene.warm()
    await scene.world.test.licenses.suspend(scene.license_id)
    await send(scene.suite, scene.request(), scene.world.test_key)
    await scene.warm()
    async with down(server):
        answer = await scene.validate()
        assert (answer.decision.freshness, answer.valid, code_of(answer)) == (GRACE, False, "SUSPENDED")
    await back(scene)


async def test_time_goes_on_and_ends_licenses_and_the_answers_themselves(
    server: EmbeddedPostgres, own_suite: Suite
) -> None:
    async with scene_of(own_suite, timedelta(seconds=3)) as scene:
        ends = datetime.now(UTC) + timedelta(seconds=1.5)
        await scene.world.test.licenses.update(scene.license_id, expire_time=ends)
        await scene.warm()
        async with down(server):
            first = await scene.validate()
            assert (first.valid, first.decision.freshness) == (True, GRACE)
            assert first.decision.recheck_after.ToTimedelta() <= timedelta(seconds=3)
            await asyncio.sleep(1.6)
            expired = await scene.validate()
            assert (code_of(expired), expired.decision.freshness) == ("EXPIRED", GRACE)
            assert expired.decision.stale_ok_until == first.decision.stale_ok_until
            await asyncio.sleep(1.6)
            assert await scene.refused(scene.request()) == AWAY
        await back(scene)


async def test_a_record_that_hangs_delays_the_first_answer_alone(server: EmbeddedPostgres, scene: Scene) -> None:
    await scene.warm()
    with paused(server):
        await asyncio.sleep(0.1)
        for n in range(4):
            begun = time.monotonic()
            assert (await scene.validate(1.0)).decision.freshness == GRACE
            assert time.monotonic() - begun < (0.9 if n == 0 else 0.2)
    await back(scene)


async def test_callers_of_all_kinds_are_known_by_what_was_known_last(server: EmbeddedPostgres, scene: Scene) -> None:
    publishable = await scene.world.test.api_keys.create(kind="PUBLISHABLE", scopes=["licenses:validate"])
    both = (("authorization", f"License {publishable.secret}:{scene.key}"),)
    await scene.warm()
    for _ in range(2):
        await send(scene.suite, scene.request(), publishable.secret)
        await scene.suite.validation.ValidateLicense(ValidateLicenseRequest(), metadata=both)
    async with down(server):
        assert (await send(scene.suite, scene.request(), publishable.secret)).decision.freshness == GRACE
        own = await scene.suite.validation.ValidateLicense(ValidateLicenseRequest(), metadata=both)
        assert (own.decision.freshness, own.license_id) == (GRACE, scene.license_id)
    await back(scene)


@asynccontextmanager
async def two_processes(server: EmbeddedPostgres, folder: Path) -> AsyncGenerator[tuple[Suite, Suite, Link]]:
    """One beside the record, and one behind a link."""
    async with (
        link_to(server.socket_dir) as link,
        running_suite(server, folder) as whole,
        running_suite(server, folder, postgres_dsn=SecretStr(link.dsn)) as far,
    ):
        yield whole, far, link


@contextmanager
def frozen(link: Link) -> Generator[None]:
    """Nothing comes through while the block runs. What was sent meanwhile is lost with its connections."""
    link.freeze()
    try:
        yield
    finally:
        link.drop()
        link.heal()


async def test_what_others_take_meanwhile_holds_when_they_were_told(server: EmbeddedPostgres, tmp_path: Path) -> None:
    """A process that is cut off cannot know: that is what a policy allows, and what `effective_time` says."""
    async with two_processes(server, tmp_path) as (whole, far, link), scene_of(whole, timedelta(seconds=4)) as here:
        there = Scene(far, here.world, here.shop, here.key, here.license_id)
        await here.warm()
        await there.warm()
        with frozen(link):
            suspended = await here.world.test.licenses.suspend(here.license_id)
            key = here.world.test_key
            assert code_of(await here.validate()) == "SUSPENDED"
            assert suspended.effective_time.ToDatetime(tzinfo=UTC) > datetime.now(UTC) + timedelta(seconds=3)
            missing = await there.validate()
            assert (code_of(missing), missing.decision.freshness) == ("VALID", GRACE)
            assert missing.decision.stale_ok_until.ToNanoseconds() < suspended.effective_time.ToNanoseconds()
            token = Consistency.AtLeastAsFresh(revision_token=suspended.revision_token)
            request = there.request(consistency=Consistency(at_least_as_fresh=token))
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await send(far, request, key, 1.0)
            assert unknown.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
            while datetime.now(UTC) < suspended.effective_time.ToDatetime(tzinfo=UTC):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            with pytest.raises(grpc.aio.AioRpcError) as over:
                await send(far, there.request(), key, 1.0)
            assert over.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        await back(there)
        assert code_of(await there.validate()) == "SUSPENDED"


async def test_a_key_that_is_revoked_meanwhile_reads_on_for_so_long_alone(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with two_processes(server, tmp_path) as (whole, far, link), scene_of(whole, timedelta(seconds=3)) as here:
        made = await here.world.test.api_keys.create(scopes=["licenses:validate"])
        there = Scene(far, here.world, here.shop, here.key, here.license_id)
        await there.warm()
        await send(far, there.request(), made.secret)
        await there.warm()
        with frozen(link):
            revoked = await here.world.test.api_keys.revoke(made.api_key.api_key_id)
            ends = revoked.effective_time.ToDatetime(tzinfo=UTC)
            assert (await send(far, there.request(), made.secret)).decision.freshness == GRACE
            await asyncio.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()))
            with pytest.raises(grpc.aio.AioRpcError):
                await send(far, there.request(), made.secret, 1.0)
        await back(there)
        told = await refused(far, there.request(), made.secret)
        assert told.reason == "CREDENTIALS_INVALID"
