"""A Redis as somebody sees it who gets at it without our client: bytes of commands, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

Reply = bytes | int | None | list["Reply"]


class Redis:
    """One connection, in RESP2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def do(self, *words: bytes | str) -> Reply:
        """One command. ValueError with the server's words where it refuses."""
        return (await self.do_all([words]))[0]

    async def do_all(self, commands: Sequence[Sequence[bytes | str]]) -> list[Reply]:
        """Commands that are sent at once: next to nothing happens between them. ValueError where the server refuses one."""
        for words in commands:
            parts = [word.encode() if isinstance(word, str) else word for word in words]
            told = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            self._writer.write(b"*%d\r\n%s" % (len(parts), told))
        return [await self._reply() for _ in commands]

    async def _reply(self) -> Reply:
        line = (await self._reader.readuntil(b"\r\n"))[:-2]
        kind, rest = line[:1], line[1:]
        match kind:
            case b"+":
                return rest
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else (await self._reader.readexactly(int(rest) + 2))[:-2]
            case b"*":
                return [await self._reply() for _ in range(int(rest))]
            case _:
                raise ValueError(rest.decode())

    async def everything(self) -> dict[bytes, bytes]:
        """All keys that hold bytes, and what they hold."""
        names = await self.do("KEYS", "*")
        assert isinstance(names, list)
        keys = [name for name in names if isinstance(name, bytes)]
        values = await self.do("MGET", *keys) if keys else []
        assert isinstance(values, list)
        return {key: value for key, value in zip(keys, values, strict=True) if isinstance(value, bytes)}


@asynccontextmanager
async def redis_at(socket: Path) -> AsyncGenerator[Redis]:
    """A connection to a server's Unix socket."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        yield Redis(reader, writer)
    finally:
        writer.close()
