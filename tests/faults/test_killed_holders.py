"""Holders of seats die: their seats are back a grace after that is noticed, and nobody had to do anything for it. A thousand die
at once, by the hand of the system, which closes their connections; and one falls silent, as a machine without power does."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest
from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity
from lictor.machine.v1 import activation_service_pb2_grpc as stubs
from lictor.machine.v1.activation_service_pb2 import HoldSeatRequest

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.record import OwnRecord, scratch
from tests.helpers.suite import Suite, World, bearer, running_suite
from tests.service.test_floating_seats import floating, leased
from tests.service.test_machine_activation import a_fingerprint, seats

HOLDERS: Final = 1000
GRACE_S: Final = 10
NOTICE: Final = timedelta(seconds=1)
"""By how long a renewal may be later than the death of its holder: until the connection is seen to be broken."""
SILENCE: Final = timedelta(seconds=90)
"""The same where nothing breaks it: the server asks after a minute, or up to 69 s on envoy, and waits 20 s for an answer."""
_HOLDER: Final = """
import asyncio, sys
import grpc.aio
from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity
from lictor.machine.v1 import activation_service_pb2_grpc as stubs
from lictor.machine.v1.activation_service_pb2 import HoldSeatRequest

async def main(endpoint, api_key, license_key, holders, grace_s):
    channels = [
        grpc.aio.insecure_channel(endpoint, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(holders // 100)
    ]
    turns = asyncio.Semaphore(16)
    async def hold(n):
        request = HoldSeatRequest(
            license=LicenseSelector(license_key=license_key), identity=MachineIdentity(fingerprint=f"fingerprint-{n:06}")
        )
        request.grace.seconds = grace_s
        stub = stubs.ActivationServiceStub(channels[n % len(channels)])
        async with turns:
            stream = stub.HoldSeat(request, metadata=(("authorization", f"Bearer {api_key}"),))
            assert (await stream.read()).HasField("granted")
        return stream
    async def read(stream):
        async for _ in stream:
            pass
    streams = []
    async def one(n):
        stream = await hold(n)
        streams.append(asyncio.create_task(drain(stream)))
    async def drain(stream):
        while await stream.read() is not grpc.aio.EOF:
            pass
    await asyncio.gather(*(one(n) for n in range(holders)))
    print("held", flush=True)
    await asyncio.wait(streams, return_when=asyncio.FIRST_COMPLETED)
    print("lost", flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
"""


async def now(suite: Suite) -> datetime:
    async with suite.admin() as conn:
        return await conn.fetchval("SELECT clock_timestamp()")


async def ends(suite: Suite, license_id: str) -> list[datetime]:
    async with suite.admin() as conn:
        rows = await conn.fetch(
            "SELECT b.lease_expires_at FROM machine.beat AS b JOIN machine.machine AS m USING (machine_id) "
            "WHERE m.license_id = $1 AND m.deactivated_at IS NULL ORDER BY 1",
            license_id,
        )
    return [row["lease_expires_at"] for row in rows]


@pytest.mark.long
async def test_the_seats_of_a_thousand_killed_holders_are_back_within_the_grace(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with (
        scratch(postgres, migrated=False) as made,
        running_suite(OwnRecord(made), tmp_path, max_in_flight=8192, account_share_percent=100) as suite,
        suite.world() as world,
    ):
        await _die(suite, world)


async def _die(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=HOLDERS)).issue()
    license_id = issued.license.license_id
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, suite.bound.api_addr, world.test_key, issued.key, str(HOLDERS), str(GRACE_S),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        async with asyncio.timeout(120):
            assert await holder.stdout.readline() == b"held\n"
        assert await seats(suite, license_id) == (HOLDERS, HOLDERS)
        await asyncio.sleep(2 * GRACE_S)
        assert min(await ends(suite, license_id)) > await now(suite), "all leases were renewed meanwhile"
        died = await now(suite)  # just before it: what is measured is never too short
    finally:
        holder.kill()
        await holder.wait()
    await asyncio.sleep(GRACE_S)
    back_s = sorted((end - died).total_seconds() for end in await ends(suite, license_id))
    assert len(back_s) == HOLDERS
    p50, p99, last = (back_s[int(HOLDERS * part)] for part in (0.5, 0.99, 0.999))
    late = sum(back > GRACE_S for back in back_s)
    print(
        f"\n{HOLDERS} killed holders, grace {GRACE_S} s: seats back after p50 {p50:.2f} s, p99 {p99:.2f} s, last {last:.2f} s; "
        f"{late} were renewed after the kill"
    )
    assert last <= GRACE_S + NOTICE.total_seconds()
    assert back_s[0] > GRACE_S / 2, "the grace was not kept"
    await asyncio.sleep(NOTICE.total_seconds())
    turns = asyncio.Semaphore(8)

    async def again(n: int) -> None:
        async with turns:
            await leased(world, issued.key, f"again-fingerprint-{n:06}", timeout_s=30)

    await asyncio.gather(*(again(n) for n in range(HOLDERS)))
    assert await seats(suite, license_id) == (HOLDERS, HOLDERS)


class Silence:
    """Passes bytes on between a client and the suite, until nothing arrives any more and nobody is told."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: list[asyncio.StreamWriter] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        there_reader, there = await asyncio.open_connection(*self._target)
        self._open += [writer, there]
        await asyncio.gather(self._pass_on(reader, there), self._pass_on(there_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()

    def falls(self) -> None:
        self._flows.clear()

    def ends(self) -> None:
        """Breaks what is still open."""
        self._flows.set()
        for writer in self._open:
            writer.transport.abort()


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_the_seat_of_a_holder_that_falls_silent_is_back_once_that_is_noticed(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    license_id = issued.license.license_id
    silence = Silence(suite.bound.api_addr)
    server = await asyncio.start_server(silence.accept, "127.0.0.1", 0)
    # Its own pings must not end what the server is to notice.
    options = [("grpc.keepalive_time_ms", 600_000)]
    port = server.sockets[0].getsockname()[1]
    try:
        async with server, grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            request = HoldSeatRequest(
                license=LicenseSelector(license_key=issued.key), identity=MachineIdentity(fingerprint=a_fingerprint())
            )
            request.grace.seconds = GRACE_S
            held: Any = stubs.ActivationServiceStub(channel).HoldSeat(request, metadata=bearer(world.test_key))
            assert (await held.read()).HasField("granted")
            assert (await held.read()).HasField("keepalive")
            fell = await now(suite)
            silence.falls()
            [end] = await ends(suite, license_id)
            while end > await now(suite):  # it is renewed on and on
                assert end - fell <= timedelta(seconds=GRACE_S) + SILENCE
                await asyncio.sleep(0.5)
                [end] = await ends(suite, license_id)
            print(f"\nsilent holder, grace {GRACE_S} s: seat back after {(end - fell).total_seconds():.1f} s")
            assert (await leased(world, issued.key)).seats.taken == 1
            silence.ends()
    finally:
        silence.ends()
