"""The bench's own generator of load: what it sends in HTTP/2, and what it makes of what comes back."""

from __future__ import annotations

import pytest

from tests.bench.frames import Answers, BrokenError, Calls, frame
from tests.bench.load import framed
from tests.bench.spread import read_bodies
from tests.helpers.h2 import ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS

SERVER_BEGINS = frame(SETTINGS, 0, 0, b"\0\3\0\0\1\0")
TRAILERS = END_HEADERS | END_STREAM


def answer(stream: int) -> bytes:
    """A gRPC answer in three frames."""
    return (
        frame(HEADERS, END_HEADERS, stream, b"\x88")
        + frame(DATA, 0, stream, framed(b"fine"))
        + frame(HEADERS, TRAILERS, stream, b"\x40\x0bgrpc-status\x010")
    )


def test_headers_are_told_once_and_then_by_their_numbers() -> None:
    calls = Calls({":path": "/a/B", "te": "trailers"})
    data = framed(b"x")
    told = b"\x83\x86" + b"\x44\x04/a/B" + b"\x40\x02te\x08trailers"
    assert calls.next(data) == frame(HEADERS, END_HEADERS, 1, told) + frame(DATA, END_STREAM, 1, data)
    # The newest header of the table has the number 62.
    numbered = b"\x83\x86\xbf\xbe"
    assert calls.next(data) == frame(HEADERS, END_HEADERS, 3, numbered) + frame(DATA, END_STREAM, 3, data)


@pytest.mark.parametrize(
    ("length", "coded"),
    [(126, b"\x7e"), (127, b"\x7f\x00"), (254, b"\x7f\x7f"), (255, b"\x7f\x80\x01"), (1337, b"\x7f\xba\x09")],
)
def test_the_length_of_a_header(length: int, coded: bytes) -> None:
    assert coded + b"k" * length in Calls({"authorization": "k" * length}).next(b"")


def test_more_headers_than_a_server_keeps_are_refused() -> None:
    with pytest.raises(ValueError, match="4109 bytes of headers"):
        Calls({"authorization": "k" * 4064})


@pytest.mark.parametrize("size", [1, 2, 5, 9, 10, 16, 1000])
def test_ends_of_calls_are_counted_however_their_bytes_come(size: int) -> None:
    answers = Answers()
    raw = SERVER_BEGINS + answer(1) + answer(3) + frame(SETTINGS, ACK, 0, b"") + answer(5)
    assert sum(answers.feed(raw[at : at + size]) for at in range(0, len(raw), size)) == 3
    assert answers.begun
    assert answers.replies() == frame(SETTINGS, ACK, 0, b"")
    assert answers.replies() == b""


def test_nothing_has_begun_before_the_server_has_said_so() -> None:
    answers = Answers()
    assert answers.feed(frame(SETTINGS, ACK, 0, b"")) == 0
    assert not answers.begun


def test_a_ping_is_answered_and_an_answer_to_one_is_not() -> None:
    answers = Answers()
    answers.feed(frame(PING, 0, 0, b"12345678") + frame(PING, ACK, 0, b"87654321"))
    assert answers.replies() == frame(PING, ACK, 0, b"12345678")


def test_the_server_is_given_back_what_it_may_send() -> None:
    answers = Answers()
    block = frame(DATA, 0, 1, bytes(2**23))
    for _ in range(127):
        answers.feed(block)
        assert answers.replies() == b""
    answers.feed(block)
    assert answers.replies() == frame(8, 0, 0, (2**30).to_bytes(4))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (frame(3, 0, 1, b"\0\0\0\x08"), "reset a call"),
        (frame(GOAWAY, 0, 0, bytes(8)), "sent its caller away"),
        (frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0"), "keeps 0 bytes of headers"),
    ],
)
def test_a_server_that_breaks_off(raw: bytes, why: str) -> None:
    with pytest.raises(BrokenError, match=why):
        Answers().feed(SERVER_BEGINS + answer(1) + raw)


def test_a_file_of_many_requests() -> None:
    bodies = [framed(bytes(n)) for n in (0, 1, 70_000, 3)]
    assert read_bodies(b"".join(bodies)) == bodies
    assert read_bodies(b"") == []
