"""A process is stopped, killed or started while rights change: it never answers from a state of before."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.license_service_pb2 import RevokeLicenseRequest
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidationCode

from shared.embedded.postgres import EmbeddedPostgres
from shared.freshness.lease import LeaseTerms
from tests.helpers.builders import Shop, assert_same, open_shop, send
from tests.helpers.embedded import kill, state_directory
from tests.helpers.lease import set_lease
from tests.helpers.serving import Served, samples, serving, until
from tests.helpers.suite import World

L_MS: Final = 1500
WAIT_S: Final = LeaseTerms(L_MS, L_MS, just_changed=False).wait_s


@pytest.fixture(scope="module", name="server")
def _server() -> Generator[EmbeddedPostgres]:
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as server:
        yield server


@asynccontextmanager
async def several(server: EmbeddedPostgres, folder: Path, number: int) -> AsyncGenerator[list[Served]]:
    """Processes on one record."""
    if not number:
        yield []
        return
    async with several(server, folder, number - 1) as others, serving(server, folder, "grpcio") as one:
        yield [*others, one]


async def validated(process: Served, world: World, key: str, within_s: float = 20.0) -> str:
    request = ValidateLicenseRequest(license=LicenseSelector(license_key=key))
    return ValidationCode.Code.Name((await send(process.suite, request, world.test_key, within_s)).code)


async def metric(process: Served, name: str, **labels: str) -> float:
    _, text = await process.get("/metrics")
    return samples(text, name).get(tuple(sorted(labels.items())), 0.0)


@pytest.mark.usefixtures("long_lease")
async def test_a_process_that_was_stopped_wakes_up_without_a_lease(server: EmbeddedPostgres, tmp_path: Path) -> None:
    async with several(server, tmp_path, 2) as (stopped, other), other.suite.world() as world:
        shop = await open_shop(world.test)
        for _ in range(3):
            made = await shop.issue()
            for _ in range(3):
                assert await validated(stopped, world, made.key) == "VALID"
            lapses = await metric(stopped, "lictor_lease_lapses_total")
            os.kill(stopped.process.pid, signal.SIGSTOP)
            try:
                await world.test.licenses.revoke(made.license.license_id)
                asked = asyncio.create_task(validated(stopped, world, made.key))
                await asyncio.sleep(0.05)
            finally:
                os.kill(stopped.process.pid, signal.SIGCONT)
            assert await asked == "REVOKED"
            assert await metric(stopped, "lictor_lease_lapses_total") == lapses + 1


async def test_a_process_that_is_killed_and_started_again_knows_what_was_taken_meanwhile(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with several(server, tmp_path, 1) as (other,), other.suite.world() as world:
        shop = await open_shop(world.test)
        made = await shop.issue()
        async with serving(server, tmp_path, "grpcio") as killed:
            assert await validated(killed, world, made.key) == "VALID"
            started = await metric(killed, "lictor_process_started_seconds")
            os.kill(killed.process.pid, signal.SIGKILL)
            await killed.ended()
        await world.test.licenses.revoke(made.license.license_id)
        async with serving(server, tmp_path, "grpcio") as again:
            assert await validated(again, world, made.key) == "REVOKED"
            assert await metric(again, "lictor_process_started_seconds") > started


async def is_revoked(process: Served, license_id: str) -> bool:
    async with process.suite.admin() as admin:
        return await admin.fetchval("SELECT status FROM license.license WHERE license_id = $1", license_id) == "revoked"


async def revoke(process: Served, shop: Shop, world: World, license_id: str, request_id: str) -> Any:
    request = RevokeLicenseRequest(license_id=license_id, request_id=request_id)
    return await send(process.suite, request, world.test_key, 20.0)


@pytest.fixture(name="long_lease")
def _long_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that a process can be killed while it waits."""

    async def longer(dsn: str) -> None:
        await set_lease(dsn, L_MS)

    monkeypatch.setattr("tests.helpers.serving.set_lease", longer)


@pytest.mark.usefixtures("long_lease")
async def test_the_retry_of_a_revocation_whose_process_died_waits_and_tells_what_was_stored(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with several(server, tmp_path, 3) as (dying, other, late), other.suite.world() as world:
        shop = await open_shop(world.test)
        made = await shop.issue()
        license_id, request_id = made.license.license_id, str(uuid4())
        assert await validated(late, world, made.key) == "VALID"
        first = asyncio.create_task(revoke(dying, shop, world, license_id, request_id))
        await until(lambda: is_revoked(other, license_id))
        assert not first.done(), "it answered before its change held everywhere"
        os.kill(dying.process.pid, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await first
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        begun = time.monotonic()
        again = await revoke(other, shop, world, license_id, request_id)
        assert time.monotonic() - begun >= WAIT_S - 0.02, "the retry is relied upon as the first answer would have been"
        assert await validated(late, world, made.key) == "REVOKED"
        assert await validated(other, world, made.key) == "REVOKED"
        assert await metric(other, "lictor_writes_replayed_total") == 1
        assert_same(await revoke(late, shop, world, license_id, request_id), again)
        async with other.suite.admin() as admin:
            events = "SELECT count(*) FROM record.event WHERE subject = $1 AND type = 'license.revoked'"
            assert await admin.fetchval(events, license_id) == 1


@pytest.mark.usefixtures("long_lease")
async def test_what_a_dead_process_has_taken_holds_within_a_lease_without_any_retry(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with several(server, tmp_path, 2) as (dying, other), other.suite.world() as world:
        shop = await open_shop(world.test)
        made = await shop.issue()
        assert await validated(other, world, made.key) == "VALID"
        first = asyncio.create_task(revoke(dying, shop, world, made.license.license_id, str(uuid4())))
        await until(lambda: is_revoked(other, made.license.license_id))
        os.kill(dying.process.pid, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError):
            await first
        await asyncio.sleep(WAIT_S)
        assert await validated(other, world, made.key) == "REVOKED"


async def test_a_crash_of_postgres_begins_an_epoch_in_which_nothing_of_before_is_believed(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with several(server, tmp_path, 1) as (process,), process.suite.world() as world:
        made = await (await open_shop(world.test)).issue()
        assert await validated(process, world, made.key) == "VALID"
        dropped = await metric(process, "lictor_tail_drops_total", why="epoch")
        await asyncio.to_thread(kill, server)
        await asyncio.to_thread(server.restart)
        async with process.suite.admin() as admin:
            changed = "UPDATE license.license SET status = 'suspended' WHERE license_id = $1"
            # Not logged: what a state that was lost with its log would look like to a tail that went on from before.
            await admin.execute("SET session_replication_role = replica")
            await admin.execute("ALTER TABLE license.license DISABLE TRIGGER log_change_license")
            await admin.execute(changed, made.license.license_id)
            await admin.execute("ALTER TABLE license.license ENABLE ALWAYS TRIGGER log_change_license")

        async def answered() -> bool:
            try:
                assert await validated(process, world, made.key) == "SUSPENDED"
                return True
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                return False

        await until(answered, 10)
        assert await metric(process, "lictor_tail_drops_total", why="epoch") == dropped + 1
