"""Gets of one turn of the event loop as one MGET: a question costs many times what another key in it does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

from shared.freshness.redis_line import Line, LineError
from shared.freshness.redis_metrics import Get, TierMetrics
from shared.freshness.sealed_entry import MAX_ENTRY_BYTES, Refusal, Sealer

MAX_WAITING: Final = 1024
"""Gets at once; more are misses."""
KEYS_PER_MGET: Final = 256
REPLY_LIMIT_BYTES: Final = KEYS_PER_MGET * (MAX_ENTRY_BYTES + 32)


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: bytes
    epoch: UUID
    answer: asyncio.Future[bytes | None]


class Gets:
    """One MGET is under way at a time; what is asked meanwhile goes as the next."""

    def __init__(self, line: Line, sealer: Sealer, metrics: TierMetrics, budget_s: float) -> None:
        """`budget_s` is for what is asked at once; a get may wait for that and one before it."""
        self._line = line
        self._sealer = sealer
        self._metrics = metrics
        self._budget_s = budget_s
        self._wanted: list[_Wanted] = []
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    async def get(self, root: str, epoch: UUID) -> bytes | None:
        """What was put for a root in this epoch; None where there is nothing, or whatever went wrong."""
        if self._waiting >= MAX_WAITING or not self._line.usable():
            self._metrics.gets[Get.SKIPPED].inc()
            return None
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._wanted.append(_Wanted(self._sealer.name(root), epoch, answer))
        self._waiting += 1
        if self._task is None:
            # It begins in the loop's next turn, with all that is asked in this one; and in no call's context.
            self._task = asyncio.create_task(self._run(), name="redis gets", context=Context())
        return await answer

    async def close(self) -> None:
        """Ends the connection; who waits gets a miss."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._end()  # a task that is cancelled before its first step never comes to its own end
        await self._line.close()

    async def _run(self) -> None:
        asked: list[_Wanted] = []
        try:
            while self._wanted:
                asked, self._wanted = self._wanted[:KEYS_PER_MGET], self._wanted[KEYS_PER_MGET:]
                entries = await self._ask(asked)
                self._waiting -= len(asked)
                for wanted, entry in zip(asked, entries, strict=True):
                    self._answer(wanted, entry)
        finally:
            self._wanted = [*asked, *self._wanted]
            self._end()

    def _end(self) -> None:
        """Nobody may be left waiting."""
        for wanted in self._wanted:
            if not wanted.answer.done():
                self._answer(wanted, Get.FAILED)
        self._wanted = []
        self._waiting = 0
        self._task = None

    async def _ask(self, asked: list[_Wanted]) -> Sequence[object]:
        """What lies under each name, or Get.FAILED for each."""
        try:
            replies = await self._line.ask([(b"MGET", *(wanted.name for wanted in asked))], self._budget_s)
        except LineError:
            return [Get.FAILED] * len(asked)
        entries = cast(list[object], replies[0]) if isinstance(replies[0], list) else []
        return entries if len(entries) == len(asked) else [Get.FAILED] * len(asked)

    def _answer(self, wanted: _Wanted, entry: object) -> None:
        body: bytes | None = None
        match entry:
            case Get():
                outcome: Get | Refusal = entry
            case None:
                outcome = Get.ABSENT
            case bytes():
                opened = self._sealer.open(wanted.name, wanted.epoch, entry)
                if isinstance(opened, Refusal):
                    outcome = opened
                else:
                    outcome, body = Get.HIT, opened
            case _:
                outcome = Refusal.MALFORMED
        self._metrics.gets[outcome].inc()
        if not wanted.answer.done():  # else its caller has gone
            wanted.answer.set_result(body)
