"""Background tasks that a process must not lose: each is named, kept until it ends, and waited for on shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from shared.errors import DomainError
from shared.observe.logging import get_logger

_log = get_logger(__name__)
_T = TypeVar("_T")


class TaskGroupTracker:
    """Holds running tasks. Unlike `asyncio.TaskGroup`, one that fails does not cancel the others."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        """How many tasks are running."""
        return len(self._tasks)

    def spawn(self, coro: Coroutine[object, object, _T], name: str) -> asyncio.Task[_T]:
        """Starts a task. A failure nobody awaits is logged; a `DomainError` is an answer, not a failure."""
        task = asyncio.create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, timeout_s: float) -> int:
        """Waits for every task, cancels those still running after `timeout_s`, and returns how many it cancelled."""
        if not self._tasks:
            return 0
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            _log.error("task cancelled at shutdown", task=task.get_name(), after_s=timeout_s)
            task.cancel()
        if late:
            await asyncio.wait(late)
        return len(late)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, DomainError):
            _log.error("task failed", task=task.get_name(), exc_info=error)
