"""HTTP/2 by hand: what no gRPC client does on purpose, such as a call on a connection that was told to go."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from tests.helpers.echo import SERVICE

DATA: Final = 0
HEADERS: Final = 1
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
ACK: Final = 1
END_STREAM: Final = 1
END_HEADERS: Final = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def last_stream(self) -> int:
        """Of a GOAWAY: the last stream that was looked at."""
        return int.from_bytes(self.payload[:4], "big")


class Connection:
    """One client's connection. It answers settings and pings, and nothing else, by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connects and exchanges settings."""
        made = cls(*await asyncio.open_connection(host, port))
        made._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        made._send(SETTINGS, 0, 0, b"")
        await made.until(SETTINGS)
        return made

    async def next(self) -> Frame | None:
        """The next frame; None when the server has closed."""
        try:
            head = await self._reader.readexactly(9)
            frame = Frame(
                head[3], head[4], int.from_bytes(head[5:], "big"),
                await self._reader.readexactly(int.from_bytes(head[:3], "big")),
            )  # fmt: skip
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        if frame.kind in (SETTINGS, PING) and not frame.flags & ACK:
            self._send(frame.kind, ACK, 0, frame.payload if frame.kind == PING else b"")
        return frame

    async def until(self, kind: int, stream: int = 0) -> Frame:
        """The next frame of a kind on a stream."""
        while (frame := await self.next()) is not None:
            if (frame.kind, frame.stream) == (kind, stream) and not (kind == SETTINGS and frame.flags & ACK):
                return frame
        raise AssertionError("the server closed the connection")

    async def closed(self) -> None:
        """Returns when the server has closed."""
        while await self.next() is not None:
            pass

    def call(self, stream: int, method: str, message: bytes, *, end: bool) -> None:
        """Begins a call of the echo service with one message."""
        self._writer.write(frames_of_a_call(stream, method, message, end=end))

    def end(self, stream: int) -> None:
        """Ends a call's requests."""
        self._send(DATA, END_STREAM, stream, b"")

    def close(self) -> None:
        """Hangs up."""
        self._writer.close()

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._writer.write(_frame(kind, flags, stream, payload))


def frames_of_a_call(stream: int, method: str, message: bytes, *, end: bool) -> bytes:
    """A call of the echo service with one message."""
    headers = {
        ":method": "POST", ":scheme": "http", ":authority": "echo", ":path": f"/{SERVICE}/{method}",
        "content-type": "application/grpc", "te": "trailers", "authorization": "Bearer all",
    }  # fmt: skip
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())
    data = b"\0" + len(message).to_bytes(4, "big") + message
    return _frame(HEADERS, END_HEADERS, stream, block) + _frame(DATA, END_STREAM * end, stream, data)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    """A string of a header block, as it is."""
    return bytes([len(text)]) + text.encode()
