"""Puts and hints: sent when there is time, many at once, or not at all. Nobody waits for them."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Final
from uuid import UUID

from shared.freshness.redis_line import Command, Line, LineError
from shared.freshness.redis_metrics import Put, TierMetrics
from shared.freshness.sealed_entry import MAX_BODY_BYTES, Sealer

TTL_S: Final = 900
"""As long as the tail remembers what has changed: an older entry could not be admitted."""
MAX_WAITING: Final = 1024
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Puts at once; more are dropped."""
BYTES_AT_ONCE: Final = 128 * 1024
"""What is sent within one budget, the last entry not counted."""

_TTL: Final = str(TTL_S).encode()


class Puts:
    """The last put of a root replaces those that still wait."""

    def __init__(self, line: Line, sealer: Sealer, metrics: TierMetrics, budget_s: float) -> None:
        """`budget_s` is for what is sent at once."""
        self._line = line
        self._sealer = sealer
        self._metrics = metrics
        self._budget_s = budget_s
        self._channel = sealer.hint_channel()
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0
        self._hint_wanted = False
        self._task: asyncio.Task[None] | None = None

    def put(self, root: str, epoch: UUID, body: bytes) -> None:
        """Stores a body for `TTL_S`, at some later time or not at all."""
        full = len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES
        if len(body) > MAX_BODY_BYTES or full or not self._line.usable():
            self._metrics.puts[Put.DROPPED].inc()
            return
        name = self._sealer.name(root)
        if (replaced := self._waiting.get(name)) is not None:
            self._waiting_bytes -= len(replaced)
            self._metrics.puts[Put.DROPPED].inc()
        entry = self._waiting[name] = self._sealer.seal(name, epoch, body)
        self._waiting_bytes += len(entry)
        self._begin()

    def publish_hint(self) -> None:
        """Wakes whoever listens, at some later time or not at all. Hints that wait are one."""
        if self._line.usable():
            self._hint_wanted = True
            self._begin()

    async def sent(self) -> None:
        """Waits until nothing waits."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Ends the connection; what still waits is lost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._line.close()

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="redis puts", context=Context())

    async def _run(self) -> None:
        try:
            while self._hint_wanted or self._waiting:
                await self._send()
        finally:
            self._task = None

    async def _send(self) -> None:
        """Sends the hint and the entries that have waited longest."""
        commands: list[Command] = []
        if self._hint_wanted:
            commands.append((b"PUBLISH", self._channel, b""))
            self._hint_wanted = False
        hints, size_bytes = len(commands), 0
        while self._waiting and size_bytes < BYTES_AT_ONCE:
            name = next(iter(self._waiting))
            entry = self._waiting.pop(name)
            size_bytes += len(entry)
            commands.append((b"SET", name, entry, b"EX", _TTL))
        self._waiting_bytes -= size_bytes
        try:
            replies = await self._line.ask(commands, self._budget_s)
        except LineError:
            replies = [None] * len(commands)
        stored = sum(reply == b"OK" for reply in replies[hints:])
        self._metrics.puts[Put.STORED].inc(stored)
        self._metrics.puts[Put.FAILED].inc(len(commands) - hints - stored)
