"""Lanes before the connections: nobody's work takes all of them, and what waits leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from shared.db.lanes import Lanes
from shared.errors import DomainError, Reason


async def test_a_lane_takes_its_width_and_others_do_not_wait_for_it() -> None:
    lanes = Lanes(2)
    for _ in range(2):
        await lanes.enter("a", 1)
    waiting = [asyncio.ensure_future(lanes.enter("a", 5)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.wait_for(lanes.enter("b", 0.01), 1)
    assert [one.done() for one in waiting] == [False] * 3
    for one in waiting:
        lanes.leave("a")
        await asyncio.wait_for(one, 1)  # in the order in which they came
    for name in "aab":
        lanes.leave(name)
    assert len(lanes) == 0


async def test_whoever_waits_too_long_or_is_cancelled_leaves_nothing_behind() -> None:
    lanes = Lanes(1)
    await lanes.enter("a", 1)
    cancelled = asyncio.ensure_future(lanes.enter("a", 5))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(DomainError) as refused:
        await lanes.enter("a", 0.01)
    assert refused.value.reason is Reason.OVERLOADED
    assert refused.value.retry_after_ms == 250
    lanes.leave("a")
    assert len(lanes) == 0
    await asyncio.wait_for(lanes.enter("a", 1), 1)
