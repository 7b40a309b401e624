"""Deadlines before, while and after a handler runs, in every unit of `grpc-timeout`."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

import pytest

from tests.conformance import http2
from tests.conformance.client import Served, known, name, outcome, raw_outcome
from tests.helpers.serving import until
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

TOO_SHORT: Final = "DEADLINE_EXCEEDED DEADLINE_TOO_SHORT"


async def answered(served: Served, sent: str, request: pb.UnaryRequest, method: str = "Unary") -> http2.Stream:
    """The answer of the server itself: this client has no clock of its own."""
    body = http2.frame(request.SerializeToString())
    return await served.raw(body, method=method, headers=[("grpc-timeout", sent.encode())])


@pytest.mark.parametrize(
    ("sent", "most_ms"),
    [("1H", 3_600_000), ("2M", 120_000), ("3S", 3_000), ("4000m", 4_000), ("5000000u", 5_000), ("99999999n", 100)],
)
async def test_units(served: Served, sent: str, most_ms: int) -> None:
    """The handler has what the caller gave, less 20 ms for the way home."""
    found = await answered(served, sent, pb.UnaryRequest())
    for _ in range(5):  # 100 ms may pass on a busy machine before the handler begins
        if found.grpc_status != 0:
            found = await answered(served, sent, pb.UnaryRequest())
    remaining_ms = pb.UnaryResponse.FromString(found.message).remaining_ms
    assert most_ms - 20 - min(2_000, most_ms - 20) < remaining_ms < most_ms - 19


@pytest.mark.parametrize(("method", "most_ms"), [("Unary", 10_000 - 20), ("Hot", 1_000 - 2), ("Write", 10_000 - 20)])
async def test_no_deadline(served: Served, method: str, most_ms: int) -> None:
    found = await served.raw(http2.frame(b""), method=method)
    remaining_ms = pb.UnaryResponse.FromString(found.message).remaining_ms
    assert most_ms / 2 < remaining_ms < most_ms + 0.001, "the sum of an arrival and a span is rounded"


@pytest.mark.parametrize("sent", ["1m", "4m", "4999u", "4999999n"])
async def test_too_short_on_arrival(served: Served, sent: str) -> None:
    called = name()
    request = pb.UnaryRequest(behaviour=pb.Behaviour(name=called))
    for method in ("Unary", "Write"):
        # grpcio's own timer may be quicker; then there are no details.
        found = raw_outcome(await answered(served, sent, request, method))
        assert found == TOO_SHORT or (served.transport == "grpcio" and found == "DEADLINE_EXCEEDED")
    assert not (await served.recall(called)).began


@pytest.mark.parametrize("sent", ["", "5", "S", "-1S", "1.5S", "10s", "5 X"])
async def test_unknown_timeout(served: Served, sent: str) -> None:
    assert raw_outcome(await answered(served, sent, pb.UnaryRequest())) == "INTERNAL"


async def test_read_at_its_deadline(served: Served) -> None:
    """It is cancelled, and its caller told 20 ms early."""
    called = name()
    begun = monotonic()
    request = pb.UnaryRequest(behaviour=pb.Behaviour(name=called, sleep_ms=30_000))
    assert raw_outcome(await answered(served, "300m", request)) == TOO_SHORT
    assert 0.27 < monotonic() - begun < 2
    state = await served.recall(called)
    assert (state.began, state.cancelled, state.ended) == (True, True, False)


async def test_write_at_its_deadline(served: Served) -> None:
    """It goes on, though its caller is told and has closed the connection; and it may still ask who its caller was."""
    called = [name() for _ in range(5)]
    behaviours = [pb.Behaviour(name=one, sleep_ms=800) for one in called]
    calls = [answered(served, "200m", pb.UnaryRequest(behaviour=one), "Write") for one in behaviours]
    assert {raw_outcome(found) for found in await asyncio.gather(*calls)} == {TOO_SHORT}
    assert not any([(await served.recall(one)).ended for one in called])

    async def ended() -> bool:
        return all([(await served.recall(one)).ended for one in called])

    await until(ended)
    assert not any([(await served.recall(one)).cancelled for one in called])


async def test_stream_at_its_deadline(served: Served) -> None:
    called = name()
    behaviour = pb.Behaviour(name=called)
    request = pb.OutputRequest(behaviour=behaviour, parts=[pb.Part(count=1_000, bytes=1, pause_ms=20)])
    stream = served.stub.Output(request, metadata=known(), timeout=0.5)
    read: list[pb.OutputResponse] = []

    async def read_on() -> None:
        async for response in stream:
            read.append(response)

    assert (await outcome(read_on())).startswith("DEADLINE_EXCEEDED")
    assert 0 < len(read) < 25

    async def cancelled() -> bool:
        return (await served.recall(called)).cancelled

    await until(cancelled)


async def test_answer_before_the_deadline(served: Served) -> None:
    request = pb.UnaryRequest(behaviour=pb.Behaviour(sleep_ms=100))
    assert raw_outcome(await answered(served, "5S", request)) == "OK"


async def test_deadlines_of_the_client_itself(served: Served) -> None:
    request = pb.UnaryRequest(behaviour=pb.Behaviour(sleep_ms=5_000))
    calls = [served.stub.Unary(request, metadata=known(), timeout=0.002 * number) for number in range(1, 51)]
    ends = await asyncio.gather(*(outcome(call) for call in calls))
    assert {end.split()[0] for end in ends} == {"DEADLINE_EXCEEDED"}
    assert await outcome(served.stub.Empty(pb.EmptyRequest(), metadata=known(), timeout=10)) == "OK"
