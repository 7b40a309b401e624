"""Refusals of a caller who calls too much: the first go out at once, those that come thick are kept back."""

from __future__ import annotations

import asyncio

import pytest

from shared.rpc.admission import FREE_REFUSALS_PER_S, WaitingRoom


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def is_held(room: WaitingRoom, caller: str, most_s: float = 30.0) -> bool:
    """Whether the answer is kept back; nobody waits for it to go."""
    held = asyncio.create_task(room.hold(caller, most_s))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if held.done():
        return False
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    return True


async def test_thick_refusals_are_kept_back_and_only_the_callers_own() -> None:
    clock = Clock()
    room = WaitingRoom(clock)
    assert not any([await is_held(room, "acc_1") for _ in range(FREE_REFUSALS_PER_S)])
    assert await is_held(room, "acc_1")
    assert not await is_held(room, "acc_2")
    clock.now += 0.5
    assert [await is_held(room, "acc_1") for _ in range(FREE_REFUSALS_PER_S // 2 + 1)][-2:] == [False, True]


async def test_nobody_is_kept_past_the_deadline_or_a_full_room() -> None:
    room = WaitingRoom(Clock(), most=1)
    for _ in range(FREE_REFUSALS_PER_S):
        await room.hold("acc_1", 30.0)
    assert not await is_held(room, "acc_1", most_s=0.0)
    first = asyncio.create_task(room.hold("acc_1", 30.0))
    await asyncio.sleep(0)
    assert not await is_held(room, "acc_1"), "there is room for one"
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await is_held(room, "acc_1")
