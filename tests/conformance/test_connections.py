"""Many calls on one connection, many connections, and connections that are sent away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic

import pytest
import pytest_asyncio

from tests.conformance import http2
from tests.conformance.client import (
    SERVICE,
    Served,
    known,
    name,
    outcome,
    own_channel,
    raw_headers,
    raw_outcome,
    serving,
)
from tests.helpers.serving import ended, until
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

AGE_S = 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def aging(transport: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """A server whose connections live for a second."""
    async with serving(transport, tmp_path_factory.mktemp("aging"), CONFORMANCE_AGE_S=str(AGE_S)) as running:
        yield running


def slept(sleep_ms: int, called: str = "") -> pb.UnaryRequest:
    return pb.UnaryRequest(behaviour=pb.Behaviour(name=called, sleep_ms=sleep_ms))


async def test_300_calls_at_once_on_a_connection(served: Served) -> None:
    """More than the 256 that a connection takes at once: the client keeps the others back."""
    async with own_channel(served) as stub:
        calls = [stub.Unary(slept(300), metadata=known(), timeout=20) for _ in range(300)]
        peers = {answer.peer for answer in await asyncio.gather(*calls)}
    assert len(peers) == 1


async def test_more_calls_than_a_process_takes(served: Served) -> None:
    """512 at once; the others are told to come back."""
    async with own_channel(served) as one, own_channel(served) as two, own_channel(served) as three:
        calls = [stub.Unary(slept(500), metadata=known(), timeout=20) for stub in (one, two, three) for _ in range(250)]
        ends = await asyncio.gather(*(outcome(call) for call in calls))
    assert set(ends) <= {"OK", "RESOURCE_EXHAUSTED OVERLOADED"}
    assert ends.count("OK") >= 512


async def test_thousands_of_calls_over_several_connections(served: Served) -> None:
    async def caller(connection: int) -> set[str]:
        peers: set[str] = set()
        async with own_channel(served) as stub:

            async def one_after_the_other(worker: int) -> None:
                for number in range(25):
                    payload = b"%d %d %d" % (connection, worker, number)
                    answer = await stub.Unary(pb.UnaryRequest(payload=payload), metadata=known(), timeout=20)
                    assert answer.payload == payload
                    peers.add(answer.peer)

            await asyncio.gather(*(one_after_the_other(worker) for worker in range(20)))
        return peers

    peers = await asyncio.gather(*(caller(connection) for connection in range(6)))
    assert [len(one) for one in peers] == [1] * 6
    assert len({peer for one in peers for peer in one}) == 6


async def test_connection_age(aging: Served) -> None:
    """A call in flight completes on the old connection, later calls go on over new ones, and none fails."""
    in_flight = aging.stub.Unary(slept(2_500), metadata=known(), timeout=20)
    peers: set[str] = set()
    begun = monotonic()
    while monotonic() - begun < 3:
        peers.add((await aging.stub.Unary(slept(5), metadata=known(), timeout=5)).peer)
    assert (await in_flight).peer in peers
    assert 2 <= len(peers) <= 6


async def test_calls_while_the_connection_is_told_to_go_away(aging: Served) -> None:
    """Many at once, over several ages."""
    ends: list[str] = []

    async def caller() -> None:
        begun = monotonic()
        while monotonic() - begun < 3:
            ends.append(await outcome(aging.stub.Unary(slept(20), metadata=known(), timeout=5)))

    await asyncio.gather(*(caller() for _ in range(20)))
    assert set(ends) == {"OK"}
    assert len(ends) > 500


async def test_server_that_leaves(aging: Served) -> None:
    """The last of this module. SIGTERM: what is in flight completes, the connection is sent away, and nothing new is taken."""
    called = name()
    async with http2.connect(aging.listen.host, aging.listen.api_port) as connection:
        stream = await connection.request(f"{SERVICE}/Unary", raw_headers())
        await stream.send(http2.frame(slept(1_000, called).SerializeToString()), end=True)
        beside = name()
        in_flight = aging.stub.Unary(slept(1_000, beside), metadata=known(), timeout=20)

        async def began() -> bool:
            return (await aging.recall(called)).began and (await aging.recall(beside)).began

        await until(began)
        aging.process.ask_to_stop()
        assert (await in_flight).payload == b""
        assert raw_outcome(await stream.answer()) == "OK"
        async with asyncio.timeout(5):
            await connection.going_away.wait()
    assert await ended(aging.process) == 0
    assert (await outcome(aging.stub.Empty(pb.EmptyRequest(), metadata=known(), timeout=5))).startswith("UNAVAILABLE")
