"""Wake-up hints: an empty message on a channel says that there is something to poll. Only a hint: polls come anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final, cast

from shared.freshness.redis_line import CONNECT_WITHIN_S, Connection, drop
from shared.observe.logging import get_logger

QUIET_S: Final = 5.0
"""After so long without a message the connection is tried; after as long again it is given up."""
AGAIN_S: Final = 2.0
AT_ONCE: Final = 100
REST_S: Final = 0.02
"""A flood of messages gets no more of the loop than `AT_ONCE` in each `REST_S`."""

_log = get_logger(__name__)


class Hints:
    """Listens on a connection of its own, which is made again for as long as this is not closed."""

    def __init__(self, connection: Connection, channel: bytes) -> None:
        self._connection = connection
        self._channel = channel
        self._task: asyncio.Task[None] | None = None

    def listen(self, callback: Callable[[], None]) -> None:
        """Calls `callback` for each hint from now on; it is called in the loop and must be quick. Once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(callback), name="redis hints", context=Context())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, callback: Callable[[], None]) -> None:
        while True:
            try:
                await self._listen(callback)
            except Exception as error:  # noqa: BLE001 - whatever the other side makes the driver raise
                _log.debug("hints are not heard", error=type(error).__name__)
            finally:
                await drop(self._connection)
            await asyncio.sleep(AGAIN_S)

    async def _listen(self, callback: Callable[[], None]) -> None:
        """Returns when the connection has to be made anew."""
        async with asyncio.timeout(CONNECT_WITHIN_S):
            await self._connection.connect()
            await self._send(b"SUBSCRIBE", self._channel)
        tried = False
        messages = 0
        while True:
            message = await self._connection.read_response(disable_decoding=True, timeout=QUIET_S)
            if message is None:
                if tried:
                    return
                await self._send(b"PING")
            tried = message is None
            if isinstance(message, list) and cast(list[object], message)[:1] == [b"message"]:
                callback()
            messages += 1
            if messages % AT_ONCE == 0:
                await asyncio.sleep(REST_S)

    async def _send(self, *command: bytes) -> None:
        await self._connection.send_packed_command(self._connection.pack_commands([command]), check_health=False)
