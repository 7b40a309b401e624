"""Background tasks are kept, waited for, and cancelled only when their time is over."""

from __future__ import annotations

import asyncio

import structlog

from shared.errors import DomainError, Reason
from shared.tasks import TaskGroupTracker


async def test_drain_waits() -> None:
    tasks, go, ended = TaskGroupTracker(), asyncio.Event(), asyncio.Event()

    async def work() -> int:
        await go.wait()
        ended.set()
        return 7

    task = tasks.spawn(work(), "work")
    assert (len(tasks), task.get_name()) == (1, "work")
    drain = asyncio.create_task(tasks.drain(5))
    go.set()
    assert await drain == 0
    assert ended.is_set()
    assert task.result() == 7
    assert len(tasks) == 0


async def test_drain_cancels_what_is_late() -> None:
    tasks, cleaned = TaskGroupTracker(), asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    tasks.spawn(endless(), "endless")
    with structlog.testing.capture_logs() as logs:
        assert await tasks.drain(0) == 1 or cleaned.is_set()
    assert [line["task"] for line in logs] == ["endless"]
    assert len(tasks) == 0


async def test_failures_are_logged_and_refusals_are_not() -> None:
    tasks = TaskGroupTracker()

    async def fail() -> None:
        raise RuntimeError("broken")

    async def refuse() -> None:
        raise DomainError(Reason.ETAG_MISMATCH, "changed")

    with structlog.testing.capture_logs() as logs:
        tasks.spawn(fail(), "failing")
        tasks.spawn(refuse(), "refusing")
        assert await tasks.drain(5) == 0
    assert [(line["event"], line["task"]) for line in logs] == [("task failed", "failing")]
