"""gRPC's interoperability cases, by their public names and with their public sizes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from tests.conformance.client import SERVICE, Served, known, name, values
from tests.helpers.serving import until
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

LARGE_REQUEST, LARGE_RESPONSE = 271_828, 314_159
REQUEST_SIZES = (27_182, 8, 1_828, 45_904)
RESPONSE_SIZES = (31_415, 9, 2_653, 58_979)


def asked(size: int, pause_ms: int = 0) -> pb.OutputRequest:
    """A request for one message."""
    return pb.OutputRequest(parts=[pb.Part(count=1, bytes=size, pause_ms=pause_ms)])


async def test_empty_unary(served: Served) -> None:
    assert await served.stub.Empty(pb.EmptyRequest(), metadata=known(), timeout=10) == pb.EmptyResponse()


async def test_large_unary(served: Served) -> None:
    request = pb.UnaryRequest(payload=bytes(LARGE_REQUEST), answer_bytes=LARGE_RESPONSE)
    answer = await served.stub.Unary(request, metadata=known(), timeout=10)
    assert answer.payload == bytes(LARGE_RESPONSE)


async def test_client_streaming(served: Served) -> None:
    async def requests() -> AsyncIterator[pb.InputRequest]:
        for size in REQUEST_SIZES:
            yield pb.InputRequest(payload=bytes(size))

    answer = await served.stub.Input(requests(), metadata=known(), timeout=10)
    assert (answer.messages, answer.bytes) == (4, 74_922)


async def test_server_streaming(served: Served) -> None:
    request = pb.OutputRequest(parts=[pb.Part(count=1, bytes=size) for size in RESPONSE_SIZES])
    answers = [answer async for answer in served.stub.Output(request, metadata=known(), timeout=10)]
    assert tuple(len(answer.payload) for answer in answers) == RESPONSE_SIZES


async def test_ping_pong(served: Served) -> None:
    stream = served.stub.Duplex(metadata=known(), timeout=10)
    for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True):
        request = asked(response_size)
        request.payload = bytes(request_size)
        await stream.write(request)
        answer = await stream.read()
        assert isinstance(answer, pb.OutputResponse)
        assert len(answer.payload) == response_size
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_empty_stream(served: Served) -> None:
    stream = served.stub.Duplex(metadata=known(), timeout=10)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_cancel_after_begin(served: Served) -> None:
    call = served.stub.Input(metadata=known(), timeout=10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancel_after_first_response(served: Served) -> None:
    called = name()
    stream = served.stub.Duplex(metadata=known(), timeout=10)
    first = asked(RESPONSE_SIZES[0])
    first.behaviour.name = called
    await stream.write(first)
    answer = await stream.read()
    assert isinstance(answer, pb.OutputResponse)
    stream.cancel()
    assert await stream.code() is grpc.StatusCode.CANCELLED

    async def over() -> bool:
        state = await served.recall(called)
        return state.cancelled or state.ended

    await until(over, 2)


async def test_timeout_on_sleeping_server(served: Served) -> None:
    stream = served.stub.Duplex(metadata=known(), timeout=0.05)
    await stream.write(asked(1, pause_ms=5_000))
    assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_custom_metadata(served: Served) -> None:
    """A pair of text goes out and comes back first, a pair of bytes goes out and comes back last."""
    initial = pb.Entry(key="x-grpc-test-echo-initial", text="test_initial_metadata_value")
    trailing = pb.Entry(key="x-grpc-test-echo-trailing-bin", binary=b"\xab\xab\xab")
    behaviour = pb.Behaviour(initial_metadata=[initial], trailing_metadata=[trailing])
    sent = known((initial.key, initial.text), (trailing.key, trailing.binary))

    unary = served.stub.Unary(pb.UnaryRequest(behaviour=behaviour), metadata=sent, timeout=10)
    reached = {entry.key: entry for entry in (await unary).metadata}
    assert (reached[initial.key], reached[trailing.key]) == (initial, trailing)
    stream = served.stub.Duplex(metadata=sent, timeout=10)
    await stream.write(pb.OutputRequest(behaviour=behaviour))
    await stream.done_writing()
    for call in (unary, stream):
        assert values(await call.initial_metadata()) == [(initial.key, initial.text)]
        assert values(await call.trailing_metadata()) == [(trailing.key, trailing.binary)]


async def test_status_code_and_message(served: Served) -> None:
    behaviour = pb.Behaviour(code=2, message="test status message")
    unary = served.stub.Unary(pb.UnaryRequest(behaviour=behaviour), metadata=known(), timeout=10)
    stream = served.stub.Duplex(metadata=known(), timeout=10)
    await stream.write(pb.OutputRequest(behaviour=behaviour))
    await stream.done_writing()
    for call in (unary, stream):
        assert await call.code() is grpc.StatusCode.UNKNOWN
        assert await call.details() == "test status message"


async def test_special_status_message(served: Served) -> None:
    message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    behaviour = pb.Behaviour(code=2, message=message)
    call = served.stub.Unary(pb.UnaryRequest(behaviour=behaviour), metadata=known(), timeout=10)
    assert await call.code() is grpc.StatusCode.UNKNOWN
    assert await call.details() == message


async def test_unimplemented_method(served: Served) -> None:
    assert await served.bytes_outcome(f"{SERVICE}/UnimplementedCall") == "UNIMPLEMENTED METHOD_UNKNOWN"


async def test_unimplemented_service(served: Served) -> None:
    path = "/lictor.test.v1.UnimplementedService/UnimplementedCall"
    assert await served.bytes_outcome(path) == "UNIMPLEMENTED METHOD_UNKNOWN"
