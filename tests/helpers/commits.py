"""A link to Postgres on which a COMMIT gets lost, on its way there or on its way back: a test then kills who waits for it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from shared.embedded.places import run_directory
from shared.embedded.postgres import DATABASE, PORT
from tests.helpers.links import CHUNK_BYTES, SOCKET

ASKED: Final = b"COMMIT;\0"
DONE: Final = b"COMMIT\0"
"""What Postgres calls a command that is done."""


class Loss(StrEnum):
    """Which half of a COMMIT gets lost."""

    QUESTION = "question"
    """Postgres never hears of it."""
    ANSWER = "answer"
    """It is done, and nobody is told."""


class Trap:
    """Passes bytes between those who connect to `folder` and the server whose socket is in `target`, until the next COMMIT on a
    connection on which `after` was sent: one half of it is lost, and nothing passes there any more."""

    def __init__(self, folder: Path, target: Path, after: bytes) -> None:
        self.folder, self.target, self.after = folder, target, after
        self._loss: Loss | None = None
        self.sprung = asyncio.Event()

    @property
    def dsn(self) -> str:
        """For a process that is to come this way."""
        return f"postgresql:///{DATABASE}?host={self.folder}&port={PORT}"

    def arm(self, loss: Loss) -> None:
        """From now on."""
        self._loss = loss
        self.sprung.clear()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        far_reader, far_writer = await asyncio.open_unix_connection(str(self.target / SOCKET))
        connection = _Connection(self)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(connection.there(reader, far_writer))
                both.create_task(connection.back(far_reader, writer))
        finally:
            for end in (writer, far_writer):
                end.close()

    def lost(self, loss: Loss) -> bool:
        """Whether this is what gets lost; no other one does then."""
        if self._loss is not loss:
            return False
        self._loss = None
        self.sprung.set()
        return True


class _Connection:
    def __init__(self, trap: Trap) -> None:
        self._trap = trap
        self._counts, self._passes = False, True

    async def there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                self._counts = self._counts or self._trap.after in chunk
                await self._pass(chunk, writer, ASKED, Loss.QUESTION)
        writer.close()

    async def back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await self._pass(chunk, writer, DONE, Loss.ANSWER)
        writer.close()

    async def _pass(self, chunk: bytes, writer: asyncio.StreamWriter, sign: bytes, loss: Loss) -> None:
        if self._counts and sign in chunk and self._trap.lost(loss):
            self._passes = False
        if self._passes:
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def trap_before(target: Path, after: bytes) -> AsyncGenerator[Trap]:
    """A trap before the server whose socket is in `target`, while the block runs."""
    folder = run_directory(None)
    trap = Trap(folder, target, after)
    server = await asyncio.start_unix_server(trap.accept, str(folder / SOCKET))
    try:
        yield trap
    finally:
        server.close()
        await server.wait_closed()
        shutil.rmtree(folder, ignore_errors=True)
