"""Heartbeats in a task beside the block."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .errors import LictorError
from .requests_beats import Beating

if TYPE_CHECKING:
    from .async_client import AsyncRunner


class AsyncBackgroundBeats:
    """Heartbeats while the block runs; `lost` says whether what beats is none any more by now, and `error` why."""

    def __init__(self, runner: AsyncRunner, beating: Beating[Any]) -> None:
        self._runner = runner
        self._beating = beating
        self._task: asyncio.Task[None] | None = None

    @property
    def lost(self) -> bool:
        return self._task is not None and self._task.done()

    @property
    def error(self) -> BaseException | None:
        return self._task.exception() if self._task is not None and self._task.done() else None

    async def wait_lost(self) -> None:
        """Waits until a heartbeat is refused."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        wait_s = self._beating.answered(await self._runner.call(self._beating.call()))
        self._task = asyncio.create_task(self._run(wait_s), name="heartbeats")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_lost = self.lost
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._beating.end is not None and not was_lost:
            with suppress(LictorError):  # it is dead in time
                await self._runner.call(self._beating.end())

    async def _run(self, wait_s: float) -> None:
        while True:
            await asyncio.sleep(wait_s)
            try:
                wait_s = self._beating.answered(await self._runner.call(self._beating.call()))
            except LictorError as error:
                wait_s = self._beating.failed(error)
