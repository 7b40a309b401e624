"""Turns: few calls of each account at once where the process is busy and several call, and as many as come otherwise."""

from __future__ import annotations

import asyncio

import pytest

from shared.rpc.turns import ACTIVE_S, BUSY_SHARE, SAMPLE_S, WIDTH, Turns


class Time:
    """A clock and a thread, moved by hand: `work` says how much of the time the thread has worked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.worked = 0.0

    def pass_(self, seconds: float, work: float) -> None:
        self.now += seconds
        self.worked += seconds * work


async def started(turns: Turns, whose: str, calls: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(turns.take(whose)) for _ in range(calls)]
    await asyncio.sleep(0)
    return tasks


def running(tasks: list[asyncio.Task[int]]) -> int:
    return sum(task.done() for task in tasks)


async def end(tasks: list[asyncio.Task[int]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def busy_turns(time: Time, *, work: float = 1.0, others: bool = True) -> Turns:
    turns = Turns(lambda: time.now, lambda: time.worked)
    if others:
        turns.leave("acc_2", await turns.take("acc_2"))
    time.pass_(2 * SAMPLE_S, work)
    return turns


@pytest.mark.parametrize(
    ("work", "others", "at_once"),
    [(1.0, True, WIDTH), (BUSY_SHARE + 0.01, True, WIDTH), (BUSY_SHARE - 0.01, True, 20), (1.0, False, 20)],
    ids=["busy", "just busy", "not busy", "alone"],
)
async def test_turns_are_taken_where_a_busy_process_has_several_callers(
    work: float, others: bool, at_once: int
) -> None:
    turns = await busy_turns(Time(), work=work, others=others)
    tasks = await started(turns, "acc_1", 20)
    assert running(tasks) == at_once
    await end(tasks)


async def test_who_waits_goes_in_order_and_only_after_its_own() -> None:
    turns = await busy_turns(Time())
    mine = await started(turns, "acc_1", 3)
    others = await started(turns, "acc_2", 1)
    assert (running(mine), running(others)) == (1, 1)
    turns.leave("acc_2", others[0].result())
    await asyncio.sleep(0)
    assert running(mine) == 1
    for done in (2, 3):
        turns.leave("acc_1", mine[0].result())
        await asyncio.sleep(0)
        assert [task.done() for task in mine] == [n < done for n in range(3)]


async def test_all_go_when_nobody_else_calls_any_more() -> None:
    time = Time()
    turns = await busy_turns(time)
    mine = await started(turns, "acc_1", 9)
    assert running(mine) == 1
    time.pass_(ACTIVE_S + 0.1, 1.0)
    turns.leave("acc_1", mine[0].result())
    await asyncio.sleep(0)
    assert running(mine) == 9


async def test_who_gives_up_leaves_no_hole_and_nothing_behind() -> None:
    turns = await busy_turns(Time())
    mine = await started(turns, "acc_1", 4)
    mine[1].cancel()
    await asyncio.sleep(0)
    turns.leave("acc_1", mine[0].result())
    mine[2].cancel()  # its turn has come, and it does not take it
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.cancelled() for task in mine] == [False, True, True, False]
    turns.leave("acc_1", mine[3].result())
    assert len(turns) == 0


async def test_a_call_that_takes_long_loses_its_turn_to_the_next() -> None:
    turns = await busy_turns(Time())
    mine = await started(turns, "acc_1", 3)
    assert running(mine) == 1
    await asyncio.wait_for(mine[1], 5)  # nobody has left
    turns.leave("acc_1", mine[0].result())
    assert len(turns) == 1, "what has lost its turn gives none back"
    await asyncio.wait_for(mine[2], 5)
    turns.leave("acc_1", mine[1].result())
    turns.leave("acc_1", mine[2].result())
    assert len(turns) == 0
