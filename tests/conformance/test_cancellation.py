"""Callers that give up, and how soon their handlers know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import pytest

from tests.conformance import http2
from tests.conformance.client import SERVICE, Served, known, name, own_channel, raw_headers
from tests.helpers.serving import until
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

NOTICED_WITHIN_S: Final = 2.0
LONG: Final = pb.Part(count=1, pause_ms=30_000)
TRICKLE: Final = pb.Part(count=10_000, bytes=10, pause_ms=10)
FLOOD: Final = pb.Part(count=10_000, bytes=256 * 1024)


class Cancellable(Protocol):
    def cancel(self) -> bool: ...


async def unary(served: Served, behaviour: pb.Behaviour) -> Cancellable:
    behaviour.sleep_ms = 30_000
    return served.stub.Unary(pb.UnaryRequest(behaviour=behaviour), metadata=known(), timeout=60)


async def silent_output(served: Served, behaviour: pb.Behaviour) -> Cancellable:
    return served.stub.Output(pb.OutputRequest(behaviour=behaviour, parts=[LONG]), metadata=known(), timeout=60)


async def busy_output(served: Served, behaviour: pb.Behaviour) -> Cancellable:
    return served.stub.Output(pb.OutputRequest(behaviour=behaviour, parts=[TRICKLE]), metadata=known(), timeout=60)


async def blocked_output(served: Served, behaviour: pb.Behaviour) -> Cancellable:
    """Nobody reads it: the handler waits to send."""
    return served.stub.Output(pb.OutputRequest(behaviour=behaviour, parts=[FLOOD]), metadata=known(), timeout=60)


async def input_in_a_handler(served: Served, behaviour: pb.Behaviour) -> Cancellable:
    behaviour.sleep_ms = 30_000
    stream = served.stub.Input(metadata=known(), timeout=60)
    await stream.write(pb.InputRequest(behaviour=behaviour))
    return stream


async def busy_duplex(served: Served, behaviour: pb.Behaviour) -> Cancellable:
    stream = served.stub.Duplex(metadata=known(), timeout=60)
    await stream.write(pb.OutputRequest(behaviour=behaviour, parts=[TRICKLE]))
    return stream


@pytest.mark.parametrize(
    ("start", "method"),
    [
        (unary, "Unary"),
        (silent_output, "Output"),
        (busy_output, "Output"),
        (blocked_output, "Output"),
        (input_in_a_handler, "Input"),
        (busy_duplex, "Duplex"),
    ],
)
async def test_handler_is_cancelled(
    served: Served, start: Callable[[Served, pb.Behaviour], Awaitable[Cancellable]], method: str
) -> None:
    """And the call is counted as what it is."""
    called = name()
    counted = await served.count(method, "CANCELLED")
    call = await start(served, pb.Behaviour(name=called))

    async def began() -> bool:
        return (await served.recall(called)).began

    async def cancelled() -> bool:
        return (await served.recall(called)).cancelled

    await until(began)
    call.cancel()
    await until(cancelled, NOTICED_WITHIN_S)
    assert not (await served.recall(called)).ended
    assert await served.count(method, "CANCELLED") == counted + 1


async def test_write_goes_on(served: Served) -> None:
    called = name()
    behaviour = pb.Behaviour(name=called, sleep_ms=500)
    call = served.stub.Write(pb.UnaryRequest(behaviour=behaviour), metadata=known(), timeout=60)

    async def began() -> bool:
        return (await served.recall(called)).began

    async def ended() -> bool:
        return (await served.recall(called)).ended

    await until(began)
    call.cancel()
    await until(ended)
    assert not (await served.recall(called)).cancelled


@pytest.mark.parametrize("method", ["Unary", "Output"])
async def test_connection_that_breaks(served: Served, method: str) -> None:
    """As if each of its calls had been cancelled, whether its handler computes or sends."""
    called = [name() for _ in range(8)]
    counted = await served.count(method, "CANCELLED")
    async with http2.connect(served.listen.host, served.listen.api_port) as connection:
        for one in called:
            behaviour = pb.Behaviour(name=one, sleep_ms=9_000 if method == "Unary" else 0)
            unary, output = pb.UnaryRequest(behaviour=behaviour), pb.OutputRequest(behaviour=behaviour, parts=[FLOOD])
            stream = await connection.request(f"{SERVICE}/{method}", raw_headers())
            await stream.send(http2.frame((unary if method == "Unary" else output).SerializeToString()), end=True)

        async def began() -> bool:
            return all([(await served.recall(one)).began for one in called])

        await until(began)

    async def cancelled() -> bool:
        return all([(await served.recall(one)).cancelled for one in called])

    await until(cancelled, NOTICED_WITHIN_S)
    assert await served.count(method, "CANCELLED") == counted + len(called)


async def test_900_calls_cancelled_at_once(served: Served) -> None:
    """A burst that breaks no connection: a call beside it goes on."""
    ping, pong = pb.OutputRequest(parts=[pb.Part(count=1)]), pb.OutputResponse()
    async with own_channel(served) as stub:
        beside = stub.Duplex(metadata=known(), timeout=20)
        await beside.write(ping)
        assert await beside.read() == pong
        for _ in range(9):
            streams = [stub.Duplex(metadata=known(), timeout=60) for _ in range(100)]
            await asyncio.gather(*(stream.write(pb.OutputRequest(parts=[LONG])) for stream in streams))
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*(stream.code() for stream in streams))
        await beside.write(ping)
        assert await beside.read() == pong
