"""A link between a process and Postgres that can be slow, stand still, or break: a small proxy between two Unix sockets."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from shared.embedded.places import run_directory
from shared.embedded.postgres import DATABASE, PORT

SOCKET: Final = f".s.PGSQL.{PORT}"
CHUNK_BYTES: Final = 65_536


class Link:
    """Passes bytes between those who connect to `folder` and the server whose socket is in `target`.

    Each connection keeps its bytes in order, whatever their delay. `target` may change: it counts for new connections.
    """

    def __init__(self, folder: Path, target: Path) -> None:
        self.folder, self.target = folder, target
        self.delay_s = 0.0
        """How much later bytes arrive, each way."""
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def dsn(self) -> str:
        """For a process that is to come this way."""
        return f"postgresql:///{DATABASE}?host={self.folder}&port={PORT}"

    def freeze(self) -> None:
        """Nothing arrives any more, and nobody is told. What is under way waits."""
        self._flows.clear()

    def cut(self) -> None:
        """Breaks every connection, and refuses new ones."""
        self._is_cut = True
        self.drop()

    def drop(self) -> None:
        """Breaks every connection; new ones are fine."""
        for writer in tuple(self._open):
            writer.transport.abort()

    def heal(self) -> None:
        """All is well again."""
        self._is_cut, self.delay_s = False, 0.0
        self._flows.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        if self._is_cut:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(str(self.target / SOCKET))
        except OSError:
            self._open.discard(writer)
            writer.transport.abort()
            return
        self._open.add(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, far_writer))
                both.create_task(self._carry(far_reader, writer))
        finally:
            for end in (writer, far_writer):
                self._open.discard(end)
                end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way. Its end ends the other way too: a connection is whole or gone."""
        parcels: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def deliver() -> None:
            loop = asyncio.get_running_loop()
            while (parcel := await parcels.get())[1]:
                await asyncio.sleep(max(0.0, parcel[0] - loop.time()))
                await self._flows.wait()
                writer.write(parcel[1])
                await writer.drain()

        loop = asyncio.get_running_loop()
        delivering = asyncio.create_task(deliver())
        try:
            with suppress(OSError):
                while chunk := await reader.read(CHUNK_BYTES):
                    await parcels.put((loop.time() + self.delay_s, chunk))
            await parcels.put((0.0, b""))
            with suppress(OSError):
                await delivering
        finally:
            delivering.cancel()
            writer.close()


@asynccontextmanager
async def link_to(target: Path) -> AsyncGenerator[Link]:
    """A link to the server whose socket is in `target`, while the block runs."""
    folder = run_directory(None)
    link = Link(folder, target)
    server = await asyncio.start_unix_server(link.accept, str(folder / SOCKET))
    try:
        yield link
    finally:
        server.close()
        link.heal()
        link.drop()
        await server.wait_closed()
        shutil.rmtree(folder, ignore_errors=True)
