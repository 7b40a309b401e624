"""gRPC as bytes: frames in any chunks, headers as clients send them, trailers as clients read them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from urllib.parse import unquote

import pytest
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]

from shared.errors import Code, DomainError
from shared.rpc.context import CallAbortedError
from shared.rpc.envoy.frames import GZIP, FrameReader, frame, whole_message
from shared.rpc.envoy.headers import (
    CERTIFICATE_HEADER,
    RequestHeaders,
    certificate_uris,
    metadata_headers,
    status_headers,
)

LIMIT = 1024 * 1024


def read(chunks: Sequence[bytes], encoding: str = "identity") -> list[bytes]:
    reader = FrameReader(encoding)
    found: list[bytes] = []
    for chunk in chunks:
        reader.feed(chunk)
        while (message := reader.next()) is not None:
            found.append(message)
    reader.finish()
    return found


def compressed(message: bytes) -> bytes:
    packed = gzip.compress(message)
    return b"\1" + len(packed).to_bytes(4, "big") + packed


def fault(chunks: Sequence[bytes], encoding: str = "identity") -> int:
    with pytest.raises(CallAbortedError) as caught:
        read(chunks, encoding)
    return caught.value.code


def test_messages_are_found_wherever_chunks_break() -> None:
    body = frame(b"") + frame(b"abc") + frame(b"x" * 300)
    for size in (1, 2, 4, 5, 6, 7, 100, len(body)):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        assert read(chunks) == [b"", b"abc", b"x" * 300]


def test_a_whole_message_is_taken_at_once() -> None:
    assert whole_message(frame(b"abc")) == b"abc"
    assert whole_message(frame(b"")) == b""
    assert whole_message(frame(bytes(LIMIT))) == bytes(LIMIT)
    assert whole_message(frame(bytes(LIMIT + 1))) is None, "it must be refused by its prefix, however it arrives"
    for body in (b"", b"\0\0", frame(b"abc")[:-1], frame(b"abc") + b"\0", compressed(b"abc")):
        assert whole_message(body) is None


def test_a_body_that_ends_within_a_message() -> None:
    assert fault([b"\0\0\0"]) == Code.INTERNAL
    assert fault([frame(b"abc") + frame(b"abc")[:-1]]) == Code.INTERNAL


def test_compression() -> None:
    assert read([compressed(b"abc") + frame(b"plain")], GZIP) == [b"abc", b"plain"]
    assert fault([compressed(b"abc")]) == Code.INTERNAL
    assert fault([b"\1\0\0\0\3abc"], GZIP) == Code.INTERNAL
    assert fault([b"\7\0\0\0\0"], GZIP) == Code.INTERNAL
    truncated = gzip.compress(b"abc" * 100)[:-4]
    assert fault([b"\1" + len(truncated).to_bytes(4, "big") + truncated], GZIP) == Code.INTERNAL
    trailing = gzip.compress(b"abc") + gzip.compress(b"abc")
    assert fault([b"\1" + len(trailing).to_bytes(4, "big") + trailing], GZIP) == Code.INTERNAL
    assert fault([], "br") == Code.UNIMPLEMENTED


def test_a_message_over_the_limit_is_refused_by_its_prefix() -> None:
    assert read([frame(b"x" * LIMIT)]) == [b"x" * LIMIT]
    assert read([compressed(b"x" * LIMIT)], GZIP) == [b"x" * LIMIT]
    for body, encoding in (
        (b"\0" + (LIMIT + 1).to_bytes(4, "big"), "identity"),
        (compressed(b"x" * (LIMIT + 1)), GZIP),
    ):
        with pytest.raises(DomainError) as caught:
            read([body], encoding)
        assert [violation.reason for violation in caught.value.violations] == ["MESSAGE_TOO_LARGE"]


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("10S", 10.0),
        ("250m", 0.25),
        ("500u", 0.0005),
        ("99999999n", 0.099999999),
        ("0m", 0),
    ],
)
def test_timeouts(sent: str, seconds: float) -> None:
    assert RequestHeaders.read([(b"grpc-timeout", sent.encode())]).time_left_s == pytest.approx(seconds)


@pytest.mark.parametrize("sent", ["", "10", "S", "123456789S", "-1S", "1.5S", "10s", "10S "])
def test_timeouts_that_gRPC_does_not_know(sent: str) -> None:
    with pytest.raises(CallAbortedError):
        RequestHeaders.read([(b"grpc-timeout", sent.encode())])


def test_metadata_is_what_is_left() -> None:
    headers = RequestHeaders.read(
        [
            (b"host", b"a"), (b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"grpc-timeout", b"1S"),
            (b"grpc-encoding", b"gzip"), (b"grpc-accept-encoding", b"gzip"), (b"x-forwarded-for", b"10.0.0.1"),
            (b"x-envoy-internal", b"true"), (b"authorization", b"Bearer x"), (b"a", b"1"), (b"a", b"2"),
            (b"b-bin", b"AP8="), (b"b-bin", b"AP8"), (b"b-bin", b"YQ,Yg==, Yw"), (b"b-bin", b""),
        ]
    )  # fmt: skip
    assert (headers.is_grpc, headers.takes_trailers, headers.encoding) == (True, True, "gzip")
    assert headers.metadata == (
        ("authorization", "Bearer x"), ("a", "1"), ("a", "2"), ("b-bin", b"\0\xff"), ("b-bin", b"\0\xff"),
        ("b-bin", b"a"), ("b-bin", b"b"), ("b-bin", b"c"), ("b-bin", b""),
    )  # fmt: skip
    with pytest.raises(CallAbortedError):
        RequestHeaders.read([(b"b-bin", b"!!!")])


@pytest.mark.parametrize(
    ("sent", "fine"),
    [
        ("application/grpc", True), ("application/grpc+proto", True), ("application/grpc;charset=utf-8", True),
        ("Application/GRPC", True), ("application/grpc-web", False), ("application/grpc+json", False),
        ("application/json", False), ("", False),
    ],
)  # fmt: skip
def test_content_types(sent: str, fine: bool) -> None:
    assert RequestHeaders.read([(b"content-type", sent.encode())]).is_grpc is fine


def test_an_error_as_trailers() -> None:
    status = status_pb2.Status(code=5, message="100% näive\nline")
    trailers = dict(status_headers(status))
    assert trailers[b"grpc-status"] == b"5"
    assert trailers[b"grpc-message"] == b"100%25 n%C3%A4ive%0Aline"
    assert unquote(trailers[b"grpc-message"].decode()) == status.message
    assert b"=" not in trailers[b"grpc-status-details-bin"]
    [(_, value)] = RequestHeaders.read([(b"d-bin", trailers[b"grpc-status-details-bin"])]).metadata
    assert isinstance(value, bytes)
    assert status_pb2.Status.FromString(value) == status


def test_metadata_as_headers() -> None:
    assert metadata_headers((("a", "1"), ("b-bin", b"\0\xff"))) == [(b"a", b"1"), (b"b-bin", b"AP8")]


@pytest.mark.parametrize(
    ("value", "uris"),
    [
        (b"Hash=00;URI=spiffe://a/b", ["spiffe://a/b"]),
        (b"By=spiffe://server;Hash=00;URI=spiffe://a/b", ["spiffe://a/b"]),
        (b"Hash=00;URI=", []),
        (b"Hash=00", []),
        (b"Hash=00;URI=spiffe://a/b;URI=spiffe://a/c", ["spiffe://a/b", "spiffe://a/c"]),
        (b"Hash=00;URI=x,Hash=11;URI=spiffe://a/c", ["x,Hash=11", "spiffe://a/c"]),
    ],
)
def test_the_uris_that_envoy_tells_of(value: bytes, uris: list[str]) -> None:
    assert certificate_uris([(b"te", b"trailers"), (CERTIFICATE_HEADER, value)]) == uris


def test_no_word_of_a_certificate() -> None:
    assert certificate_uris([(b"te", b"trailers")]) == []
