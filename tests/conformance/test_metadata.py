"""Metadata both ways: text and bytes, several values of a key, empty values, first and last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import grpc
import pytest

from tests.conformance.client import Served, known, values
from tests.conformance.servicer import entries, metadata
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

Pairs = Sequence[tuple[str, str | bytes]]

EACH: Final = pytest.mark.parametrize(
    "pairs",
    [
        [("one", "1")],
        [("many", "1"), ("many", "2"), ("many", "1")],
        [("many-bin", b"1"), ("many-bin", b""), ("many-bin", b"\0\xff")],
        [("empty", "")],
        [("empty-bin", b"")],
        [("every-bin", bytes(range(256)))],
        [(f"length{length}-bin", b"x" * length) for length in range(4)],
        [("signs", "".join(map(chr, range(0x21, 0x7F))))],
        [("with-space", "a b  c, d; e=f")],
        [("k0_.-z", "name")],
        [("long", "x" * 4000)],
    ],
    ids=lambda pairs: pairs[0][0],
)


@EACH
async def test_metadata_reaches_the_handler(served: Served, pairs: Pairs) -> None:
    answer = await served.stub.Unary(pb.UnaryRequest(), metadata=known(*pairs), timeout=10)
    assert values(metadata(answer.metadata)) == list(pairs)


@EACH
async def test_metadata_of_an_answer(served: Served, pairs: Pairs) -> None:
    """First and last, of a unary call and of a stream."""
    sent = entries(tuple(pairs))
    behaviour = pb.Behaviour(initial_metadata=sent, trailing_metadata=sent)
    unary = served.stub.Unary(pb.UnaryRequest(behaviour=behaviour), metadata=known(), timeout=10)
    stream = served.stub.Output(
        pb.OutputRequest(behaviour=behaviour, parts=[pb.Part(count=2)]), metadata=known(), timeout=10
    )
    assert [answer async for answer in stream] == [pb.OutputResponse()] * 2
    for call in (unary, stream):
        assert values(await call.initial_metadata()) == list(pairs)
        assert values(await call.trailing_metadata()) == list(pairs)


@EACH
async def test_metadata_of_an_error(served: Served, pairs: Pairs) -> None:
    """Without a message before it, and after one."""
    sent = entries(tuple(pairs))
    for initial, count in (([], 0), (sent, 0), (sent, 1)):
        behaviour = pb.Behaviour(initial_metadata=initial, trailing_metadata=sent, sleep_ms=30, code=5)
        request = pb.OutputRequest(behaviour=behaviour, parts=[pb.Part(count=count)])
        stream = served.stub.Output(request, metadata=known(), timeout=10)
        # Asked for first: grpcio's stream forgets it when it sees the status before.
        assert values(await stream.initial_metadata()) == (list(pairs) if initial else [])
        assert [await stream.read() for _ in range(count)] == [pb.OutputResponse()] * count
        assert await stream.code() is grpc.StatusCode.NOT_FOUND
        assert values(await stream.trailing_metadata()) == list(pairs)


async def test_initial_metadata_arrives_before_the_answer(served: Served) -> None:
    behaviour = pb.Behaviour(initial_metadata=[pb.Entry(key="first", text="1")], sleep_ms=30_000)
    call = served.stub.Output(pb.OutputRequest(behaviour=behaviour), metadata=known(), timeout=60)
    async with asyncio.timeout(5):
        assert values(await call.initial_metadata()) == [("first", "1")]
    assert not call.done()
    call.cancel()


async def test_metadata_that_reaches_no_handler(served: Served) -> None:
    hidden = (("lictor-a", "1"), ("x-envoy-b", "1"), ("x-forwarded-for", "10.0.0.1"))
    answer = await served.stub.Unary(pb.UnaryRequest(), metadata=known(*hidden, ("mine", "1")), timeout=10)
    assert values(metadata(answer.metadata)) == [("mine", "1")]


async def test_metadata_that_every_call_has(served: Served) -> None:
    """A handler sees the caller's own words and its user agent, and nothing of the transport."""
    answer = await served.stub.Unary(pb.UnaryRequest(), metadata=known(), timeout=10)
    assert {entry.key for entry in answer.metadata} == {"user-agent"}


async def test_metadata_just_under_the_limit(served: Served) -> None:
    answer = await served.stub.Unary(pb.UnaryRequest(), metadata=known(("big", "x" * 15_000)), timeout=10)
    assert values(metadata(answer.metadata)) == [("big", "x" * 15_000)]


async def test_two_credentials(served: Served) -> None:
    call = served.stub.Unary(pb.UnaryRequest(), metadata=known(("authorization", "Bearer other")), timeout=10)
    assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_peer(served: Served) -> None:
    answer = await served.stub.Unary(pb.UnaryRequest(), metadata=known(), timeout=10)
    host, _, port = answer.peer.rpartition(":")
    assert (host, port.isdigit()) == ("ipv4:127.0.0.1", True)
