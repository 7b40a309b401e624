"""The connections of one role: opened when they are needed, kept, and lent to one statement or transaction at a time.

A pool of the driver's hands each connection back through a task and a round trip, which costs more than a read.
Nothing here sets anything beyond its own transaction, so a connection is handed back by putting it on a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from shared.db.lanes import LANE, Lanes

ACQUIRE_TIMEOUT_S = 2.0


class Connections:
    """At most `size` connections, and for the work of one lane at most half of them.

    Args:
        connect: Opens one.
        size: How many there may be.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], size: int) -> None:
        self._connect = connect
        self._places = asyncio.Semaphore(size)
        self._size = size
        self._idle: list[asyncpg.Connection] = []
        self._open: set[asyncpg.Connection] = set()
        self._lanes = Lanes(max(1, size // 2))
        self._lane_of: dict[asyncpg.Connection, str] = {}
        """In which lane the connections are that are lent to one."""

    async def acquire(self) -> asyncpg.Connection:
        """A connection for the caller alone, until it gives it back.

        Raises:
            DomainError: OVERLOADED, when the caller's own lane gave it no place within `ACQUIRE_TIMEOUT_S`.
            TimeoutError: None was free, or opened, within that time.
        """
        lane = LANE.get()
        if not lane:
            return await self._acquire()
        await self._lanes.enter(lane, ACQUIRE_TIMEOUT_S)
        try:
            conn = await self._acquire()
        except BaseException:
            self._lanes.leave(lane)
            raise
        self._lane_of[conn] = lane
        return conn

    async def _acquire(self) -> asyncpg.Connection:
        if self._places.locked():
            async with asyncio.timeout(ACQUIRE_TIMEOUT_S):
                await self._places.acquire()
        else:
            await self._places.acquire()  # at once, so without a timer
        while self._idle:
            conn = self._idle.pop()
            if not conn.is_closed():
                return conn
            self._open.discard(conn)
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_S):
                conn = await self._connect()
        except BaseException:
            self._places.release()
            raise
        self._open.add(conn)
        return conn

    def give_back(self, conn: asyncpg.Connection) -> None:
        """Ends a loan. A connection that is left within a transaction is closed, since nobody knows its state."""
        lane = self._lane_of.pop(conn, None)
        if lane is not None:
            self._lanes.leave(lane)
        if not conn.is_closed() and conn.is_in_transaction():
            conn.terminate()
        if conn.is_closed():
            self._open.discard(conn)
        else:
            self._idle.append(conn)
        self._places.release()

    async def close(self) -> None:
        """Waits until every connection is given back, and closes them."""
        for _ in range(self._size):
            await self._places.acquire()
        for conn in self._idle:
            await conn.close()

    def terminate(self) -> None:
        """Closes every connection now, whoever has it."""
        for conn in self._open:
            conn.terminate()
