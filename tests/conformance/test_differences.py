"""Each row of the table of differences, on both transports; and the document has the same rows."""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import grpc
import pytest

from tests.conformance import http2
from tests.conformance.client import (
    MAX_MESSAGE_BYTES,
    MIB,
    SERVICE,
    Served,
    known,
    name,
    own_channel,
    raw_headers,
    raw_outcome,
)  # fmt: skip
from tests.conformance.differences import DIFFERENCES
from tests.helpers.serving import until
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

Probe = Callable[[Served], Awaitable[str]]
MESSAGE: Final = pb.UnaryRequest(payload=b"abc").SerializeToString()
FRAME: Final = http2.frame(MESSAGE)
DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "transports.md"


def raw(
    body: bytes = FRAME,
    *more: tuple[str, bytes],
    method: str = "Unary",
    without: Sequence[str] = (),
    http: str = "POST",
) -> Probe:
    """A request of one's own making."""

    async def probe(served: Served) -> str:
        return raw_outcome(await served.raw(body, method=method, headers=more, without=without, http=http))

    return probe


def encoded(encoding: str, payload: bytes) -> Probe:
    return raw(http2.frame(payload, 1), ("grpc-encoding", encoding.encode()))


async def late(served: Served) -> str:
    async with http2.connect(served.listen.host, served.listen.api_port) as connection:
        stream = await connection.request(f"{SERVICE}/Unary", raw_headers(("grpc-timeout", b"300m")))
        await stream.send(FRAME[:3])
        return raw_outcome(await stream.answer())


async def streams_beyond_the_limit(served: Served) -> str:
    body = http2.frame(pb.UnaryRequest(behaviour=pb.Behaviour(sleep_ms=500)).SerializeToString())
    async with http2.connect(served.listen.host, served.listen.api_port) as connection:
        first = await connection.request(f"{SERVICE}/Empty", raw_headers())
        await first.send(http2.frame(b""), end=True)
        await first.answer()  # by now a client knows how many it may open
        streams = [await connection.request(f"{SERVICE}/Unary", raw_headers()) for _ in range(257)]
        for stream in streams:
            await stream.send(body, end=True)
        *others, last = [raw_outcome(await stream.answer()) for stream in streams]
    return f"{last} beside {' '.join(sorted(set(others)))}"


async def response_headers(served: Served) -> str:
    answered = await served.raw(FRAME)
    return " ".join(sorted(answered.blocks[0].keys() - {":status", "content-type"}))


async def cancelled_request_stream(served: Served) -> str:
    called = name()
    stream = served.stub.Duplex(metadata=known(), timeout=30)
    await stream.write(pb.OutputRequest(behaviour=pb.Behaviour(name=called), parts=[pb.Part(count=1)]))
    await stream.read()
    stream.cancel()

    async def over() -> bool:
        state = await served.recall(called)
        return state.cancelled or state.ended

    await until(over)
    certain = served.transport == "envoy" and (await served.recall(called)).cancelled
    return "cancelled" if certain else "over"


async def cancelled_while_held_back(served: Served) -> str:
    called = name()
    async with own_channel(served) as stub:
        stream = stub.Input(metadata=known(), timeout=30)
        await stream.write(pb.InputRequest(behaviour=pb.Behaviour(name=called, sleep_ms=3000)))
        writing = asyncio.create_task(_write_until_held_back(stream))
        await asyncio.wait({writing}, timeout=0.5)
        stream.cancel()
        await asyncio.wait({writing})

        async def cancelled() -> bool:
            return (await served.recall(called)).cancelled

        try:
            await until(cancelled, 1.0)
        except TimeoutError:
            await until(cancelled)
            return "running"
        return "cancelled"


async def _write_until_held_back(stream: grpc.aio.StreamUnaryCall[pb.InputRequest, pb.InputResponse]) -> None:
    try:
        while True:
            await stream.write(pb.InputRequest(payload=bytes(256 * 1024)))
    except (asyncio.CancelledError, asyncio.InvalidStateError, grpc.aio.AioRpcError):
        return


PROBES: Final[dict[str, Probe]] = {
    "headers_over_16_kib": raw(FRAME, ("big", b"x" * 20_000)),
    "more_than_100_headers": raw(FRAME, *((f"k{number}", b"x") for number in range(101))),
    "large_message_of_nobody": raw(http2.frame(bytes(MAX_MESSAGE_BYTES + 1)), without=["authorization"]),
    "message_over_4_mib": encoded("gzip", gzip.compress(bytes(5 * MIB))),
    "deflate": encoded("deflate", zlib.compress(MESSAGE)),
    "unknown_encoding": encoded("br", MESSAGE),
    "two_messages": raw(FRAME * 2),
    "no_message": raw(b"", ("grpc-timeout", b"300m")),
    "truncated_message": raw(FRAME[:-1], ("grpc-timeout", b"300m")),
    "truncated_stream": raw(http2.frame(b"") + http2.frame(b"\x12\x03abc")[:-1], method="Input"),
    "late_request": late,
    "no_time_left": raw(FRAME, ("grpc-timeout", b"0m")),
    "timeout_of_nine_digits": raw(FRAME, ("grpc-timeout", b"000000010S")),
    "joined_binary_metadata": raw(FRAME, ("x-bin", b"YQ,Yg")),
    "content_type": raw(FRAME, ("content-type", b"application/json")),
    "no_te": raw(without=["te"]),
    "method_get": raw(FRAME, http="GET"),
    "streams_beyond_the_limit": streams_beyond_the_limit,
    "response_headers": response_headers,
    "cancelled_request_stream": cancelled_request_stream,
    "cancelled_while_held_back": cancelled_while_held_back,
}


@pytest.mark.parametrize("case", DIFFERENCES)
async def test_difference(served: Served, case: str) -> None:
    assert await PROBES[case](served) == DIFFERENCES[case].on(served.transport)


def test_every_difference_is_shown() -> None:
    assert PROBES.keys() == DIFFERENCES.keys()


def test_the_document_has_the_same_table() -> None:
    section = DOCUMENT.read_text().partition("## Differences that a caller can see")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|.*\|$", section, re.MULTILINE)
    assert rows[2:] == [difference.row for difference in DIFFERENCES.values()]
