"""A small HTTP/2 client for requests that no gRPC library sends: every frame is the test's own."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.conformance.hpack import Decoder, encode

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW_BYTES: Final = 16 * 1024 * 1024
CANCEL: Final = 8
"""The error code of a client that has lost interest."""


def frame(message: bytes, flag: int = 0) -> bytes:
    """A message of gRPC."""
    return struct.pack(">BI", flag, len(message)) + message


class Stream:
    """One request and its answer, as far as it has come.

    Attributes:
        headers: The answer's first block of headers, then its trailers.
        reset: HTTP/2's error code, when the server has reset the stream.
    """

    def __init__(self, connection: Connection, number: int, window: int) -> None:
        self._connection = connection
        self.number = number
        self.window = window
        self.blocks: list[dict[str, str]] = []
        self.body = bytearray()
        self.reset: int | None = None
        self.over = asyncio.Event()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Sends a part of the request, in one frame where it fits; nothing more once the server has answered."""
        while not self.over.is_set():
            room = min(self.window, self._connection.window, 16_384)
            if room <= 0 and data:
                await self._connection.more_room()
                continue
            part, data = data[:room], data[room:]
            self.window -= len(part)
            self._connection.window -= len(part)
            self._connection.send(_DATA, _END_STREAM if end and not data else 0, self.number, part)
            if not data:
                break
        await self._connection.flush()

    def cancel(self) -> None:
        """Resets the stream."""
        self._connection.send(_RST_STREAM, 0, self.number, struct.pack(">I", CANCEL))

    async def answer(self, within_s: float = 10.0) -> Stream:
        """Waits for the end of the answer."""
        async with asyncio.timeout(within_s):
            await self.over.wait()
        return self

    @property
    def http_status(self) -> int:
        return int(self.blocks[0][":status"])

    @property
    def grpc_status(self) -> int | None:
        """None where the answer has none, which no gRPC client should ever see."""
        found = [block["grpc-status"] for block in self.blocks if "grpc-status" in block]
        return int(found[-1]) if found else None

    @property
    def message(self) -> bytes:
        """The one message of the answer."""
        flag, size = struct.unpack(">BI", self.body[:5])
        assert (flag, size) == (0, len(self.body) - 5)
        return bytes(self.body[5:])


class Connection:
    """One connection. Made by `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._streams: dict[int, Stream] = {}
        self._first_window = 65_535
        self._room = asyncio.Event()
        self.window = 65_535
        self.going_away = asyncio.Event()
        self.closed = asyncio.Event()

    def begin(self) -> None:
        self._writer.write(_PREFACE)
        self.send(_SETTINGS, 0, 0, struct.pack(">HI", 4, _WINDOW_BYTES))
        self.send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_BYTES))

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Sends a frame."""
        self._writer.write(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    async def flush(self) -> None:
        await self._writer.drain()

    async def more_room(self) -> None:
        """Waits for a word of the server about windows, or for the end of an answer."""
        self._room.clear()
        async with asyncio.timeout(10):
            await self._room.wait()

    async def request(
        self, path: str, headers: Sequence[tuple[str, bytes]], *, method: str = "POST", end: bool = False
    ) -> Stream:
        """Begins a request."""
        number = 2 * len(self._streams) + 1
        stream = self._streams[number] = Stream(self, number, self._first_window)
        pseudo = [(":method", method.encode()), (":scheme", b"http"), (":path", path.encode()), (":authority", b"test")]
        block = encode([*pseudo, *headers])
        first, rest = block[:16_384], block[16_384:]
        flags = _END_STREAM if end else 0
        self.send(_HEADERS, flags if rest else flags | _END_HEADERS, number, first)
        while rest:
            first, rest = rest[:16_384], rest[16_384:]
            self.send(_CONTINUATION, 0 if rest else _END_HEADERS, number, first)
        await self.flush()
        return stream

    async def read(self) -> None:
        """Takes what the server sends until it closes the connection."""
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await self._reader.readexactly(9)
                    kind, flags, number = struct.unpack(">BBI", head[3:])
                    payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                    self._take(kind, flags, number, payload)
        finally:
            self.closed.set()
            for stream in self._streams.values():
                stream.over.set()

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self.send(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            self.going_away.set()
        elif kind == _WINDOW_UPDATE:
            if stream is not None:
                stream.window += int.from_bytes(payload, "big")
            elif number == 0:
                self.window += int.from_bytes(payload, "big")
            self._room.set()
        elif stream is not None:
            self._answer(stream, kind, flags, payload)

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == 4:
                for stream in self._streams.values():
                    stream.window += value - self._first_window
                self._first_window = value
        self.send(_SETTINGS, _ACK, 0, b"")
        self._room.set()

    def _answer(self, stream: Stream, kind: int, flags: int, payload: bytes) -> None:
        if kind == _HEADERS:
            assert flags & _END_HEADERS, "a block of headers in several frames is not read here"
            stream.blocks.append(dict(self._decoder.decode(payload)))
        elif kind == _DATA:
            stream.body += payload
        elif kind == _RST_STREAM:
            stream.reset = int.from_bytes(payload, "big")
        if kind == _RST_STREAM or (kind in (_HEADERS, _DATA) and flags & _END_STREAM):
            stream.over.set()
            self._room.set()


@asynccontextmanager
async def connect(host: str, port: int) -> AsyncGenerator[Connection]:
    """A connection to a server that speaks HTTP/2 without being asked."""
    reader, writer = await asyncio.open_connection(host, port)
    connection = Connection(reader, writer)
    connection.begin()
    reading = asyncio.create_task(connection.read())
    try:
        yield connection
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        writer.close()
