"""The record goes away, or stops answering, under a running process: callers are told in time, and nothing is half done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import grpc
import grpc.aio
import pytest
import pytest_asyncio
from lictor.account.v1.account_service_pb2 import WhoAmIRequest
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest, GetLicenseRequest, SuspendLicenseRequest
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidateLicenseResponse

from shared.db.pool import PostgresTarget, connected
from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from shared.freshness.poll import CONNECT_WITHIN_S, RecordSource
from tests.helpers.echo import Refusal, refusal
from tests.helpers.embedded import kill, paused, state_directory
from tests.helpers.serving import until
from tests.helpers.suite import Suite, World, bearer, running_suite

NOT_IN_TIME = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}

HALF_WRITTEN = """
    SELECT l.license_id FROM license.license AS l
      LEFT JOIN license.license_key AS k USING (account_id, mode, license_id)
      LEFT JOIN record.event AS e ON e.subject = l.license_id AND e.type = 'license.created'
      LEFT JOIN record.outbox AS o ON o.event_id = e.event_id
     WHERE k.key_hash IS NULL OR o.event_id IS NULL
     UNION ALL SELECT subject FROM record.event AS e WHERE type = 'license.created'
       AND NOT EXISTS (SELECT 1 FROM license.license AS l WHERE l.license_id = e.subject)
     UNION ALL SELECT method FROM record.request WHERE result IS NULL
"""


@pytest.fixture(scope="module", name="server")
def _server() -> Generator[EmbeddedPostgres]:
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="own_suite")
async def _own_suite(server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Suite]:
    folder: Path = tmp_path_factory.mktemp("unreachable")
    async with running_suite(server, folder) as running:
        yield running


class Scene:
    """A license of a fresh account, and calls as they are on the wire, without the client's retries."""

    def __init__(self, suite: Suite, world: World, policy_id: str, license_id: str) -> None:
        self.suite, self.license_id, self.policy_id = suite, license_id, policy_id
        self.metadata = bearer(world.test_key)

    async def validate(self, within_s: float | None = 5.0) -> ValidateLicenseResponse:
        request = ValidateLicenseRequest(license=LicenseSelector(license_id=self.license_id))
        return await self.suite.validation.ValidateLicense(request, metadata=self.metadata, timeout=within_s)

    async def create(self, request_id: str = "", within_s: float = 5.0) -> Any:
        request = CreateLicenseRequest(policy_id=self.policy_id, request_id=request_id)
        return await self.suite.licenses.CreateLicense(request, metadata=self.metadata, timeout=within_s)

    async def suspend(self) -> Any:
        request = SuspendLicenseRequest(license_id=self.license_id)
        return await self.suite.licenses.SuspendLicense(request, metadata=self.metadata, timeout=5)

    async def get(self) -> Any:
        request = GetLicenseRequest(license_id=self.license_id)
        return await self.suite.licenses.GetLicense(request, metadata=self.metadata, timeout=5)

    async def whoami(self) -> Any:
        return await self.suite.accounts.WhoAmI(WhoAmIRequest(), metadata=self.metadata, timeout=5)

    async def half_written(self) -> list[Any]:
        async with self.suite.admin() as admin:
            return await admin.fetch(HALF_WRITTEN)

    async def licenses(self) -> set[str]:
        async with self.suite.admin() as admin:
            rows = await admin.fetch("SELECT license_id FROM license.license WHERE policy_id = $1", self.policy_id)
        return {row[0] for row in rows}


@pytest_asyncio.fixture(loop_scope="session", name="scene")
async def _scene(own_suite: Suite) -> AsyncGenerator[Scene]:
    async with own_suite.world() as world:
        product = (await world.test.products.create(code="PROAPP", display_name="Pro App")).product
        policy = await world.test.policies.create(
            product_id=product.product_id, display_name="P", max_machines=1, require_fingerprint=False
        )
        issued = await world.test.licenses.create(policy_id=policy.policy.policy_id)
        yield Scene(own_suite, world, policy.policy.policy_id, issued.license.license_id)


async def refused(call: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return refusal(error.value)


async def probe(suite: Suite, path: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"http://{suite.bound.ops_addr}{path}") as answer:
        return answer.status


async def until_idle(suite: Suite) -> None:
    """Waits until no call holds a place any more: a caller that is gone must not cost one for as long as the record hangs."""
    for _ in range(25):
        async with aiohttp.ClientSession() as http, http.get(f"http://{suite.bound.ops_addr}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        if "lictor_in_flight 0.0" in lines:
            return
        await asyncio.sleep(0.02)
    pytest.fail("calls whose callers are gone are still in flight")


async def until_answered(scene: Scene, within_s: float) -> ValidateLicenseResponse:
    """The first validation that is answered; every refusal before it is of a record that is away."""
    limit = time.monotonic() + within_s
    while True:
        try:
            return await scene.validate()
        except grpc.aio.AioRpcError as error:
            assert refusal(error).reason == "RECORD_UNREACHABLE"
            assert time.monotonic() < limit, "calls do not work again"
            await asyncio.sleep(0.05)


async def test_calls_say_that_the_record_is_away_and_work_again_when_it_is_back(
    server: EmbeddedPostgres, scene: Scene
) -> None:
    await asyncio.to_thread(kill, server)
    try:
        for call in (scene.validate, scene.create, scene.suspend, scene.get, scene.whoami):
            for _ in range(3):
                begun = time.monotonic()
                told = await refused(call())
                assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "RECORD_UNREACHABLE"), call
                assert told.retry_ms == 250
                assert time.monotonic() - begun < 1
                assert str(server.socket_dir) not in told.message
        assert (await probe(scene.suite, "/readyz"), await probe(scene.suite, "/livez")) == (200, 200)
    finally:
        await asyncio.to_thread(server.restart)
    assert (await until_answered(scene, 5)).valid
    assert len(await scene.licenses()) == 1
    assert (await scene.create()).key
    assert await scene.half_written() == []


async def test_writes_under_way_when_the_record_dies_are_whole_or_not_at_all(
    server: EmbeddedPostgres, scene: Scene
) -> None:
    made: set[str] = set()
    refusals: list[Refusal] = []

    async def write() -> None:
        while not refusals:
            try:
                made.add((await scene.create()).license.license_id)
            except grpc.aio.AioRpcError as error:
                refusals.append(refusal(error))

    writers = [asyncio.create_task(write()) for _ in range(12)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(kill, server)
    try:
        await asyncio.wait_for(asyncio.gather(*writers), 10)
    finally:
        await asyncio.to_thread(server.restart)
    assert {told.reason for told in refusals} == {"RECORD_UNREACHABLE"}
    assert all(told.retry_ms is not None for told in refusals)
    await until_answered(scene, 5)
    assert made
    assert made < await scene.licenses()
    assert await scene.half_written() == []


async def test_a_retry_after_a_crash_is_done_once(server: EmbeddedPostgres, scene: Scene) -> None:
    """The caller cannot know whether the commit was in time; with the same request id it need not."""
    before = await scene.licenses()
    request_ids = [f"{n:032x}" for n in range(8)]
    calls = [asyncio.create_task(scene.create(request_id)) for request_id in request_ids]
    await asyncio.sleep(0.005)
    await asyncio.to_thread(kill, server)
    first = await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.to_thread(server.restart)
    await until_answered(scene, 5)
    again = [await scene.create(request_id) for request_id in request_ids]
    for one, other in zip(first, again, strict=True):
        if not isinstance(one, BaseException):
            assert (one.key, one.license) == (other.key, other.license)
    assert len(await scene.licenses() - before) == len(request_ids)
    assert await scene.half_written() == []


async def test_one_lost_connection_is_replaced(scene: Scene) -> None:
    async with scene.suite.admin() as admin:
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'lictor%'")
    assert (await until_answered(scene, 5)).valid
    assert (await scene.create()).key


async def test_a_record_that_takes_no_writes_is_away_for_writes(scene: Scene) -> None:
    """As a standby is in the middle of a failover: it lets in, and refuses."""

    async def refuses() -> bool:
        try:
            await scene.create()
        except grpc.aio.AioRpcError as error:
            assert (error.code(), refusal(error).reason) == (grpc.StatusCode.UNAVAILABLE, "RECORD_UNREACHABLE")
            return True
        return False

    async def accepts() -> bool:
        return not await refuses()

    async with scene.suite.admin() as admin:
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        try:
            await until(refuses)
        finally:
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await admin.execute("SELECT pg_reload_conf()")
    await until(accepts)
    assert (await scene.validate()).valid


@pytest.mark.parametrize("within_s", [0.3, 1.0])
async def test_a_record_that_hangs_costs_a_caller_no_more_than_its_deadline(
    server: EmbeddedPostgres, scene: Scene, within_s: float
) -> None:
    with paused(server):
        begun = time.monotonic()
        done = await asyncio.gather(*(scene.validate(within_s) for _ in range(12)), return_exceptions=True)
        took = time.monotonic() - begun
        assert all(isinstance(error, grpc.aio.AioRpcError) and error.code() in NOT_IN_TIME for error in done), done
        assert within_s * 0.8 < took < within_s + 0.3
        await until_idle(scene.suite)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await scene.create(within_s=within_s)
        assert late.value.code() in NOT_IN_TIME
        assert await probe(scene.suite, "/livez") == 200
    assert (await until_answered(scene, 5)).valid
    assert (await scene.create()).key
    assert await scene.half_written() == []


async def test_a_caller_without_a_deadline_is_told_at_ours(server: EmbeddedPostgres, scene: Scene) -> None:
    """Nobody else ends the call then: it must not wait for Postgres to notice that it was given up."""
    with paused(server):
        begun = time.monotonic()
        told = await refused(scene.validate(None))
        took = time.monotonic() - begun
    assert told.reason == "DEADLINE_TOO_SHORT"
    assert 0.8 < took < 1.3
    assert (await until_answered(scene, 5)).valid


async def test_a_caller_who_waits_long_is_told_before_it_gives_up(server: EmbeddedPostgres, scene: Scene) -> None:
    """The bound of one statement is ours: 5 s."""
    with paused(server):
        begun = time.monotonic()
        told = await refused(scene.validate(9))
        took = time.monotonic() - begun
    assert told.reason == "RECORD_UNREACHABLE"
    assert took < 8
    assert (await until_answered(scene, 5)).valid


async def test_a_poll_gives_up_a_connection_that_is_not_made(server: EmbeddedPostgres) -> None:
    """Calls wait for polls, and the driver would wait for a minute."""

    async def never() -> asyncpg.Connection:
        with paused(server):
            return await connected(PostgresTarget(server.dsn()), Role.FACTS)

    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        await RecordSource(never).base(timedelta(minutes=1))
    assert time.monotonic() - begun < CONNECT_WITHIN_S + 1
