"""Streams: many messages, large messages, and a side that is slower than the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import grpc
import grpc.aio

from tests.conformance.client import MIB, Served, known, name, outcome, own_channel
from tests.helpers.serving import until
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

LARGE: Final = 256 * 1024
PARTS: Final = 256
HELD_BACK_BYTES: Final = 32 * MIB
"""What may be on its way of a stream of 64 MiB that nobody reads: the windows and buffers of both ends."""
MEMORY_BYTES: Final = 32 * MIB
"""How much memory the server may need for that."""


async def stands_still(counted: Callable[[], int]) -> int:
    """Waits until a number has stopped growing, and returns it."""
    seen, quiet = -1, 0
    async with asyncio.timeout(10):
        while quiet < 6:
            quiet = quiet + 1 if counted() == seen else 0
            seen = counted()
            await asyncio.sleep(0.05)
    return seen


async def test_10000_messages_of_a_response(served: Served) -> None:
    request = pb.OutputRequest(parts=[pb.Part(count=10_000, bytes=10)])
    stream = served.stub.Output(request, metadata=known(), timeout=30)
    assert [len(answer.payload) async for answer in stream] == [10] * 10_000


async def test_10000_messages_of_a_request(served: Served) -> None:
    async def requests() -> AsyncIterator[pb.InputRequest]:
        for _ in range(10_000):
            yield pb.InputRequest(payload=b"0123456789")

    answer = await served.stub.Input(requests(), metadata=known(), timeout=30)
    assert (answer.messages, answer.bytes) == (10_000, 100_000)


async def test_large_messages_both_ways_at_once(served: Served) -> None:
    stream = served.stub.Duplex(metadata=known(), timeout=30)

    async def write() -> None:
        for _ in range(64):
            await stream.write(pb.OutputRequest(payload=bytes(LARGE), parts=[pb.Part(count=1)]))
        await stream.done_writing()

    writing = asyncio.create_task(write())
    assert [len(answer.payload) async for answer in stream] == [LARGE] * 64
    await writing
    assert await stream.code() is grpc.StatusCode.OK


async def test_half_close(served: Served) -> None:
    """The caller has no more to say, and the server goes on."""
    stream = served.stub.Duplex(metadata=known(), timeout=10)
    await stream.write(pb.OutputRequest(parts=[pb.Part(count=5, bytes=3, pause_ms=20)]))
    await stream.done_writing()
    assert [len(answer.payload) async for answer in stream] == [3] * 5
    assert await stream.code() is grpc.StatusCode.OK


async def test_ping_pong_500_times(served: Served) -> None:
    stream = served.stub.Duplex(metadata=known(), timeout=30)
    for number in range(500):
        await stream.write(pb.OutputRequest(payload=b"%d" % number, parts=[pb.Part(count=1)]))
        assert await stream.read() == pb.OutputResponse(payload=b"%d" % number)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_slow_reader_holds_the_handler_back(served: Served) -> None:
    called = name()
    request = pb.OutputRequest(behaviour=pb.Behaviour(name=called), parts=[pb.Part(count=PARTS, bytes=LARGE)])
    before = (await served.recall("")).resident_bytes
    most = sent = 0

    async def look(now: asyncio.Event) -> None:
        nonlocal most, sent
        while not now.is_set():
            state = await served.recall(called)
            most, sent = max(most, state.resident_bytes), state.sent
            await asyncio.sleep(0.02)

    over = asyncio.Event()
    looking = asyncio.create_task(look(over))
    async with own_channel(served) as stub:
        stream = stub.Output(request, metadata=known(), timeout=60)
        responses = aiter(stream)
        assert len((await anext(responses)).payload) == LARGE
        await until(lambda: sent > 0)
        held = await stands_still(lambda: sent)
        rest = [len(answer.payload) async for answer in responses]
    over.set()
    await looking
    assert held * LARGE < HELD_BACK_BYTES
    assert rest == [LARGE] * (PARTS - 1)
    assert most - before < MEMORY_BYTES


async def test_slow_handler_holds_the_caller_back(served: Served) -> None:
    called = name()
    before = (await served.recall("")).resident_bytes
    most = written = 0
    async with own_channel(served) as stub:
        stream = stub.Input(metadata=known(), timeout=60)

        async def write() -> None:
            nonlocal written
            for _ in range(PARTS):
                await stream.write(pb.InputRequest(payload=bytes(LARGE)))
                written += 1
            await stream.done_writing()

        await stream.write(pb.InputRequest(behaviour=pb.Behaviour(name=called, sleep_ms=2_000)))
        writing = asyncio.create_task(write())
        held = await stands_still(lambda: written)
        state = await served.recall(called)
        assert (state.read, state.ended) == (1, False), "the handler sleeps"
        while not writing.done():
            most = max(most, (await served.recall(called)).resident_bytes)
            await asyncio.wait({writing}, timeout=0.02)
        answer = await stream
    assert held * LARGE < HELD_BACK_BYTES
    assert (answer.messages, answer.bytes) == (PARTS + 1, PARTS * LARGE)
    assert most - before < MEMORY_BYTES


async def test_empty_messages_that_nobody_reads(served: Served) -> None:
    """They count for what they are on the wire, and hold up nobody else."""
    called = name()
    before = (await served.recall("")).resident_bytes
    async with own_channel(served) as stub:
        stream = stub.Input(metadata=known(), timeout=30)
        await stream.write(pb.InputRequest(behaviour=pb.Behaviour(name=called, sleep_ms=1_000)))

        async def write() -> None:
            for _ in range(20_000):
                await stream.write(pb.InputRequest())
            await stream.done_writing()

        await asyncio.gather(write(), outcome(served.stub.Empty(pb.EmptyRequest(), metadata=known(), timeout=5)))
        assert (await stream).messages == 20_001
    assert (await served.recall(called)).resident_bytes - before < MEMORY_BYTES
