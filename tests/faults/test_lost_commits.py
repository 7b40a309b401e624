"""A process is killed between its COMMIT and its answer, or just before the COMMIT: whoever asks again under the same request id,
elsewhere, has what was asked for, once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity
from lictor.machine.v1.activation_service_pb2 import AcquireSeatRequest, ActivateMachineRequest
from lictor.machine.v1.machine_service_pb2 import TransferMachineRequest

from shared.embedded.ports import free_listen
from shared.embedded.postgres import EmbeddedPostgres
from tests.bench.processes import family
from tests.helpers.builders import METHODS, assert_same, open_shop, path_of, refused, send
from tests.helpers.commits import Loss, Trap, trap_before
from tests.helpers.echo import as_is
from tests.helpers.serving import TRANSPORTS, Served, launch, serving, settled
from tests.helpers.suite import bearer

pytestmark = [pytest.mark.long, pytest.mark.together, pytest.mark.timeout(120)]

LOST_WITHIN_S: Final = 20.0
CALLS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "activate": ("machine.activated", lambda answer: answer.machine),
    "lease": ("seat.granted", lambda answer: answer.granted.machine),
    "transfer": ("machine.transferred", lambda answer: answer.machine),
}
"""What each call tells, and the machine that its answer names."""


@dataclass(frozen=True)
class Site:
    """The process that is not killed, and the record of both."""

    rest: Served
    postgres: EmbeddedPostgres
    folder: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="site")
async def _site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    folder = tmp_path_factory.mktemp("lost-commits")
    async with serving(postgres, folder, "grpcio") as rest:
        yield Site(rest, postgres, folder)


@dataclass(frozen=True)
class Victim:
    """A process of the machine service, and the trap in its way to the record."""

    channel: grpc.aio.Channel
    trap: Trap
    pid: int

    async def ask(self, request: Message, key: str) -> bytes:
        path = path_of(METHODS[request.DESCRIPTOR.full_name])
        call = self.channel.unary_unary(path, as_is, as_is)
        return await call(request.SerializeToString(), timeout=30, metadata=grpc.aio.Metadata(*bearer(key)))

    def kill(self) -> None:
        for pid in family(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def victim(site: Site, transport: str) -> AsyncGenerator[Victim]:
    listen, rest = free_listen("127.0.0.1"), site.rest
    async with trap_before(site.postgres.socket_dir, b"INSERT INTO machine.machine") as trap:
        environment = {
            "LICTOR_TARGET": "machine",
            "LICTOR_TRANSPORT": transport,
            "LICTOR_POSTGRES_DSN": trap.dsn,
            "LICTOR_ROOT_SECRET_FILE": str(rest.suite.settings.root_secret_file),
            "LICTOR_LICENSE_ADDR": rest.listen.api,
            "LICTOR_LAME_DUCK_S": "0",
            "LICTOR_LOG_FORMAT": "text",
            "LICTOR_MACHINE_SWEEP_INTERVAL_S": "86400",
        }
        process = launch(site.folder, listen, environment)
        try:
            assert await settled(process, listen), process.log.read_text()
            async with grpc.aio.insecure_channel(listen.api, options=(("grpc.enable_retries", 0),)) as channel:
                yield Victim(channel, trap, process.pid)
        finally:
            await asyncio.to_thread(process.stop)


async def seated(conn: asyncpg.Connection, license_id: str, event: str) -> tuple[list[str], int, int]:
    """The machines with a seat of a license, how many the record counts, and how often it tells how the first came to it."""
    rows = await conn.fetch(
        "SELECT machine_id FROM machine.machine WHERE license_id = $1 AND deactivated_at IS NULL", license_id
    )
    ids = [row["machine_id"] for row in rows]
    counted = await conn.fetchval("SELECT machines FROM machine.seat WHERE license_id = $1", license_id)
    told = await conn.fetchval("SELECT count(*) FROM record.event WHERE type = $1 AND subject = ANY ($2)", event, ids)
    return ids, counted or 0, told


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_who_asks_again_has_it_once(site: Site, transport: str, call: str, loss: Loss) -> None:
    event, named = CALLS[call]
    suite = site.rest.suite
    async with suite.world() as world, suite.admin() as conn, victim(site, transport) as process:
        shop = await open_shop(world.test, floating=True, max_machines=1, allow_machine_transfer=True)
        issued = await shop.issue()
        license_id, key = issued.license.license_id, world.test_key
        of_license: dict[str, Any] = {"license": LicenseSelector(license_key=issued.key)}
        mine, another = (MachineIdentity(fingerprint=f"fingerprint-{uuid4()}") for _ in range(2))
        full = ActivateMachineRequest(request_id=str(uuid4()), **of_license, identity=another)
        before: list[str] = []
        request: Any = ActivateMachineRequest(**of_license, identity=mine)
        if call == "lease":
            request = AcquireSeatRequest(**of_license, identity=mine)
        elif call == "transfer":
            before = [(await send(suite, full, key)).machine.machine_id]
            request = TransferMachineRequest(machine_id=before[0], identity=mine)
        request.request_id, full.request_id = str(uuid4()), str(uuid4())

        process.trap.arm(loss)
        asked = asyncio.create_task(process.ask(request, key))
        async with asyncio.timeout(LOST_WITHIN_S):
            await process.trap.sprung.wait()
        ids, counted, told = await seated(conn, license_id, event)
        assert not asked.done(), "the answer was given before the COMMIT was done"
        if loss is Loss.ANSWER:
            assert (len(ids), counted, told) == (1, 1, 1), "it is committed"
            assert ids != before
        else:
            assert (ids, counted, told) == (before, len(before), 0), "it is not committed"
        process.kill()
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await asked
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE

        answer = await send(suite, request, key)
        machine_id = named(answer).machine_id
        assert await seated(conn, license_id, event) == ([machine_id], 1, 1)
        assert machine_id not in before
        if loss is Loss.ANSWER:
            assert ids == [machine_id], "the machine that was committed is the one that is answered"
        assert_same(await send(suite, request, key), answer)
        assert (await refused(suite, full, key)).reason == "MACHINE_LIMIT_EXCEEDED"
        assert await seated(conn, license_id, event) == ([machine_id], 1, 1)
