"""`client.hold_seat`: a seat while a block runs, held over broken connections, and given up in the end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from lictor import AsyncLictor, FailedPrecondition, Lictor
from lictor.machine.v1.machine_pb2 import Machine

from tests.helpers.suite import Suite, World
from tests.service.test_floating_seats import floating, leased
from tests.service.test_machine_activation import a_fingerprint, seats

GRACE = timedelta(seconds=5)


async def test_a_block_has_a_seat_and_gives_it_up(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    license_id = issued.license.license_id
    async with world.test.hold_seat(key=issued.key, fingerprint=a_fingerprint(), grace=GRACE) as seat:
        first = seat.grant.machine.lease.expire_time.ToDatetime()
        assert await seats(suite, license_id) == (1, 1)
        await asyncio.sleep(3)
        assert seat.grant.machine.lease.expire_time.ToDatetime() > first
        assert not seat.lost
        with pytest.raises(FailedPrecondition) as caught:
            async with world.test.hold_seat(key=issued.key, fingerprint=a_fingerprint()):
                raise AssertionError("there are two on one seat")
        assert caught.value.reason == "MACHINE_LIMIT_EXCEEDED"
    assert await seats(suite, license_id) == (0, 0)


async def test_a_block_learns_that_its_seat_is_lost(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="EVICT_OLDEST")).issue()
    async with world.test.hold_seat(key=issued.key, fingerprint=a_fingerprint(), grace=GRACE) as seat:
        await leased(world, issued.key)
        async with asyncio.timeout(5):
            await seat.wait_lost()
        assert seat.lost
        assert isinstance(seat.error, FailedPrecondition)
        assert seat.error.reason == "SEAT_LOST"
    assert await seats(suite, issued.license.license_id) == (1, 1)


async def test_a_blocking_client_holds_one_too(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1, acquire="EVICT_OLDEST")).issue()
    key, endpoint = issued.key, suite.bound.api_addr

    def block() -> tuple[int, bool, str]:
        with Lictor(api_key=world.test_key, endpoint=endpoint) as client:
            with client.hold_seat(key=key, fingerprint=a_fingerprint(), grace=GRACE) as seat:
                epoch = seat.grant.machine.lease.epoch
            with client.hold_seat(key=key, fingerprint=a_fingerprint(), grace=GRACE) as seat:
                client.acquire_seat(key=key, fingerprint=a_fingerprint())
                lost = seat.wait_lost(5)
                return epoch, lost, getattr(seat.error, "reason", "")

    assert await asyncio.to_thread(block) == (1, True, "SEAT_LOST")
    assert await seats(suite, issued.license.license_id) == (1, 1)


class Proxy:
    """Passes bytes on between a client and the suite, until its connections are broken."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._open: list[asyncio.StreamWriter] = []
        self.accepted = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        there_reader, there = await asyncio.open_connection(*self._target)
        self._open += [writer, there]
        await asyncio.gather(pipe(reader, there), pipe(there_reader, writer))

    def break_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def test_a_block_holds_its_seat_over_broken_connections(suite: Suite, world: World) -> None:
    issued = await (await floating(suite, world, seats=1)).issue()
    proxy = Proxy(suite.bound.api_addr)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AsyncLictor(api_key=world.test_key, endpoint=f"127.0.0.1:{port}") as client:
        async with client.hold_seat(key=issued.key, fingerprint=a_fingerprint(), grace=GRACE) as seat:
            machine = Machine()
            machine.CopyFrom(seat.grant.machine)
            for _ in range(3):
                proxy.break_all()
                await asyncio.sleep(2.5)
            assert proxy.accepted > 1
            assert not seat.lost
            assert seat.grant.machine.machine_id == machine.machine_id
            assert seat.grant.machine.lease.epoch == machine.lease.epoch
            assert seat.grant.machine.lease.expire_time.ToDatetime() > machine.lease.expire_time.ToDatetime()
        proxy.break_all()
    assert await seats(suite, issued.license.license_id) == (0, 0)
