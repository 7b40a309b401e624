"""HTTP/2 as a generator of load needs it: unary calls of one method, and a count of those that have ended.

Nothing is decoded but the heads of frames: what an answer says is for the server's own count to tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.helpers.h2 import ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS

RST_STREAM: Final = 3
WINDOW_UPDATE: Final = 8
HEADER_TABLE_SIZE: Final = 1
INITIAL_WINDOW_SIZE: Final = 4
TABLE_BYTES: Final = 4096
"""What a server keeps of headers that it was told once, unless it says otherwise."""
ENTRY_BYTES: Final = 32
"""What each header counts for there, beside its name and value."""
WINDOW: Final = 2**31 - 1
"""What the server may send at once, on a stream and on the connection."""
FIRST_WINDOW: Final = 65_535
_KNOWN: Final = {":authority": 1, ":path": 4, "authorization": 23, "content-type": 31}
"""Headers whose names have numbers."""
_POST_HTTP: Final = b"\x83\x86"
_FIRST_OWN: Final = 62


class BrokenError(Exception):
    """The server ended a call, or all of them, without an answer."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def opening() -> bytes:
    """What a client says first: that the server never has to wait before it answers."""
    settings = INITIAL_WINDOW_SIZE.to_bytes(2) + WINDOW.to_bytes(4)
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(SETTINGS, 0, 0, settings)
        + frame(WINDOW_UPDATE, 0, 0, (WINDOW - FIRST_WINDOW).to_bytes(4))
    )


class Calls:
    """The calls of one connection, in the order of their streams."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        kept = sum(len(name) + len(value) + ENTRY_BYTES for name, value in headers.items())
        if kept > TABLE_BYTES:
            raise ValueError(f"{kept} bytes of headers are more than a server keeps")
        self._block = _POST_HTTP + b"".join(_told_once(name, value) for name, value in headers.items())
        last = _FIRST_OWN + len(headers) - 1
        self._next_block = _POST_HTTP + bytes(0x80 | (last - n) for n in range(len(headers)))
        self._stream = 1

    def next(self, body: bytes) -> bytes:
        """The frames of the next call. Its headers are told with the first, and later only by their numbers."""
        made = frame(HEADERS, END_HEADERS, self._stream, self._block) + frame(DATA, END_STREAM, self._stream, body)
        self._stream += 2
        self._block = self._next_block
        return made


class Answers:
    """What comes back on one connection."""

    def __init__(self) -> None:
        self.begun = False
        """Whether the server's settings have come: before that nothing may rely on them."""
        self._rest = b""
        self._unread = 0
        self._replies: list[bytes] = []

    def feed(self, data: bytes) -> int:
        """Takes what was received; how many calls ended with it.

        Raises:
            BrokenError: The server reset a call, sends its callers away, or keeps fewer headers than we tell.
        """
        data = self._rest + data if self._rest else data
        at, size, ended = 0, len(data), 0
        while size - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            after = at + 9 + length
            if after > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind <= HEADERS:
                ended += flags & END_STREAM
                if kind == DATA:
                    self._unread += length
            else:
                self._other(kind, flags, data[at + 9 : after])
            at = after
        self._rest = data[at:]
        if self._unread > WINDOW // 2:
            self._replies.append(frame(WINDOW_UPDATE, 0, 0, self._unread.to_bytes(4)))
            self._unread = 0
        return ended

    def replies(self) -> bytes:
        """What the server is owed for what it has sent."""
        if not self._replies:
            return b""
        owed = b"".join(self._replies)
        self._replies.clear()
        return owed

    def _other(self, kind: int, flags: int, payload: bytes) -> None:
        if kind in (RST_STREAM, GOAWAY):
            raise BrokenError("the server reset a call" if kind == RST_STREAM else "the server sent its caller away")
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6])
                if name == HEADER_TABLE_SIZE and value < TABLE_BYTES:
                    raise BrokenError(f"the server keeps {value} bytes of headers, less than {TABLE_BYTES}")
            self.begun = True
            self._replies.append(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._replies.append(frame(PING, ACK, 0, payload))


def _told_once(name: str, value: str) -> bytes:
    """A header that the server is to keep."""
    number = _KNOWN.get(name)
    named = b"\x40" + _text(name) if number is None else bytes((0x40 | number,))
    return named + _text(value)


def _text(text: str) -> bytes:
    """A string as it is, after its length: 7 bits, and what does not fit in groups of 7 more."""
    raw = text.encode()
    length = len(raw)
    if length < 0x7F:
        return bytes((length,)) + raw
    length -= 0x7F
    head = bytearray((0x7F,))
    while length >= 0x80:
        head.append(0x80 | (length & 0x7F))
        length >>= 7
    head.append(length)
    return bytes(head) + raw
