"""Messages of every size and in every shape that a client may send them."""

from __future__ import annotations

import gzip

import grpc
import pytest

from tests.conformance import http2
from tests.conformance.client import (
    MAX_MESSAGE_BYTES,
    MIB,
    SERVICE,
    Served,
    known,
    outcome,
    raw_headers,
    raw_outcome,
)  # fmt: skip
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

TOO_LARGE = "INVALID_ARGUMENT MESSAGE_TOO_LARGE"


def of_size(size: int) -> pb.UnaryRequest:
    """A request that is so long on the wire."""
    request = pb.UnaryRequest(payload=bytes(size))
    request.payload = bytes(2 * size - request.ByteSize())
    assert request.ByteSize() == size
    return request


async def test_empty_message(served: Served) -> None:
    answer = await served.stub.Unary(pb.UnaryRequest(), metadata=known(), timeout=10)
    assert answer.payload == b""


async def test_message_at_the_limit(served: Served) -> None:
    request = of_size(MAX_MESSAGE_BYTES)
    answer = await served.stub.Unary(request, metadata=known(), timeout=10)
    assert answer.payload == request.payload


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES + 1, 3 * MIB, 4 * MIB])
async def test_message_over_the_limit(served: Served, size: int) -> None:
    assert await outcome(served.stub.Unary(of_size(size), metadata=known(), timeout=10)) == TOO_LARGE
    assert await outcome(served.stub.Empty(pb.EmptyRequest(), metadata=known(), timeout=10)) == "OK"


async def test_message_of_16_mib_many_times(served: Served) -> None:
    refused = {await outcome(served.stub.Unary(of_size(16 * MIB), metadata=known(), timeout=10)) for _ in range(3)}
    assert refused == {TOO_LARGE if served.transport == "envoy" else "RESOURCE_EXHAUSTED"}


async def test_message_over_the_limit_within_a_stream(served: Served) -> None:
    stream = served.stub.Duplex(metadata=known(), timeout=10)
    await stream.write(pb.OutputRequest(parts=[pb.Part(count=1)]))
    assert await stream.read() == pb.OutputResponse()
    await stream.write(pb.OutputRequest(payload=bytes(MAX_MESSAGE_BYTES + 1)))
    assert await outcome(stream.read()) == TOO_LARGE


async def test_large_response(served: Served) -> None:
    request = pb.UnaryRequest(answer_bytes=3 * MIB)
    assert len((await served.stub.Unary(request, metadata=known(), timeout=10)).payload) == 3 * MIB


async def test_malformed_message(served: Served) -> None:
    path = f"{SERVICE}/Unary"
    assert await served.bytes_outcome(path, b"\xff") == "INVALID_ARGUMENT MESSAGE_MALFORMED"
    assert await served.bytes_outcome(path, b"\x0a\x03\x0a\x01\xff") == "INVALID_ARGUMENT UTF8_INVALID"
    assert await served.bytes_outcome(path, b"\x0a\x03\x0a\x01\x00") == "INVALID_ARGUMENT NUL_IN_STRING"


async def test_frame_split_at_every_byte(served: Served) -> None:
    body = http2.frame(pb.UnaryRequest(payload=b"abc").SerializeToString())
    splits = [[body[:at], body[at:]] for at in range(1, len(body))]
    async with http2.connect(served.listen.host, served.listen.api_port) as connection:
        for parts in [*splits, [bytes([byte]) for byte in body]]:
            stream = await connection.request(f"{SERVICE}/Unary", raw_headers())
            for part in parts:
                await stream.send(part)
            await stream.send(b"", end=True)
            answered = await stream.answer()
            assert raw_outcome(answered) == "OK"
            assert pb.UnaryResponse.FromString(answered.message).payload == b"abc"


async def test_frames_of_a_stream_in_one_piece(served: Served) -> None:
    body = b"".join(http2.frame(pb.InputRequest(payload=bytes(size)).SerializeToString()) for size in (0, 1, 300))
    answered = await served.raw(body, method="Input")
    assert raw_outcome(answered) == "OK"
    assert pb.InputResponse.FromString(answered.message) == pb.InputResponse(messages=3, bytes=301)


@pytest.mark.parametrize("content_type", [b"application/grpc", b"application/grpc+proto"])
async def test_content_types(served: Served, content_type: bytes) -> None:
    answered = await served.raw(http2.frame(b""), headers=[("content-type", content_type)])
    assert raw_outcome(answered) == "OK"
    assert answered.blocks[0]["content-type"] == "application/grpc"


async def test_compressed_request(served: Served) -> None:
    request = pb.UnaryRequest(payload=b"abc" * 1000)
    call = served.stub.Unary(request, metadata=known(), timeout=10, compression=grpc.Compression.Gzip)
    assert (await call).payload == request.payload


async def test_compressed_request_stream(served: Served) -> None:
    """Each message says for itself whether it is compressed."""
    message = pb.InputRequest(payload=b"abc").SerializeToString()
    body = http2.frame(gzip.compress(message), 1) + http2.frame(message)
    answered = await served.raw(body, method="Input", headers=[("grpc-encoding", b"gzip")])
    assert pb.InputResponse.FromString(answered.message) == pb.InputResponse(messages=2, bytes=6)


async def test_client_that_takes_compressed_responses(served: Served) -> None:
    headers = [("grpc-accept-encoding", b"identity,deflate,gzip")]
    answered = await served.raw(http2.frame(b"\x12\x03abc"), headers=headers)
    assert pb.UnaryResponse.FromString(answered.message).payload == b"abc"


async def test_gzip_bomb(served: Served) -> None:
    bomb = gzip.compress(pb.UnaryRequest(payload=bytes(3 * MIB)).SerializeToString())
    assert len(bomb) < 10_000
    answered = await served.raw(http2.frame(bomb, 1), headers=[("grpc-encoding", b"gzip")])
    assert raw_outcome(answered) == TOO_LARGE


async def test_gzip_that_is_none(served: Served) -> None:
    answered = await served.raw(http2.frame(b"abc", 1), headers=[("grpc-encoding", b"gzip")])
    assert raw_outcome(answered) == "INTERNAL"


async def test_compressed_flag_without_encoding(served: Served) -> None:
    assert raw_outcome(await served.raw(http2.frame(b"", 1))) == "INTERNAL"
