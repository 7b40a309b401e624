"""A coroutine that was stepped once goes on as if it had been awaited from the start."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from shared.rpc.stepping import resume


async def stepped(running: Coroutine[Any, Any, str]) -> str:
    return await resume(running, running.send(None))


async def sleepy(steps: int) -> str:
    for _ in range(steps):
        await asyncio.sleep(0)
    return str(steps)


@pytest.mark.parametrize("steps", [1, 2, 5])
async def test_it_ends_with_its_answer(steps: int) -> None:
    assert await stepped(sleepy(steps)) == str(steps)


async def test_it_waits_for_futures() -> None:
    future = asyncio.get_running_loop().create_future()

    async def waiting() -> str:
        return await future

    asyncio.get_running_loop().call_later(0.01, future.set_result, "done")
    assert await stepped(waiting()) == "done"


async def test_its_errors_come_out() -> None:
    async def failing() -> str:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await stepped(failing())


async def test_an_error_of_what_it_waits_for_goes_in() -> None:
    future = asyncio.get_running_loop().create_future()

    async def catching() -> str:
        try:
            return await future
        except KeyError:
            return "caught"

    asyncio.get_running_loop().call_soon(future.set_exception, KeyError())
    assert await stepped(catching()) == "caught"


async def test_a_cancellation_goes_in_and_comes_out() -> None:
    seen: list[str] = []

    async def cleaning() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned")
        return ""

    task = asyncio.create_task(stepped(cleaning()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cleaned"]


async def test_a_timeout_around_it_holds() -> None:
    async def slow() -> str:
        await asyncio.sleep(60)
        return ""

    running = slow()
    waiting_for = running.send(None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resume(running, waiting_for)


async def test_closing_it_closes_the_coroutine() -> None:
    closed: list[bool] = []

    async def open_until_closed() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            closed.append(True)
        return ""

    outer = stepped(open_until_closed())
    outer.send(None)
    outer.close()
    assert closed == [True]
