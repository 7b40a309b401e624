"""Which kept answers are given again, and which go when there is no room."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Final

import pytest_asyncio

from shared.freshness.memory import CHANCES, Fact
from shared.freshness.recall import Recall, Recalled
from tests.consistency.stage import Cast, Process, process_on
from tests.helpers.record import Scratch

MOST: Final = 3 * CHANCES


@pytest_asyncio.fixture(name="process")
async def _process(db: Scratch, cast: Cast) -> AsyncGenerator[Process]:
    async with process_on(db) as process:
        yield process


def kept(process: Process, *facts: Fact, until_s: float | None = None) -> Recalled:
    now = process.tail.now()
    return Recalled(facts, now, None if until_s is None else now + timedelta(seconds=until_s))


def fact(name: str, value: int = 1) -> Fact:
    return Fact(f"license:{name}", value, 100)


async def test_one_is_given_while_all_its_facts_are_held(process: Process) -> None:
    answers: Recall[str, Recalled] = Recall(process.tail, process.memory, MOST)
    one, other = fact("one"), fact("other")
    process.memory.put(one)
    process.memory.put(other)
    answer = kept(process, one, other)
    answers.put("asked", answer)
    process.memory.put(fact("other"))
    for _ in range(2):
        assert (found := answers.get("asked")) is not None
        assert found[0] is answer
    process.memory.put(fact("other", 2))
    assert answers.get("asked") is None
    process.memory.put(other)
    assert answers.get("asked") is None, "it is not kept until its fact comes back"
    assert len(answers) == 0


async def test_one_of_facts_that_were_gone_before_it_was_kept_is_not_given(process: Process) -> None:
    answers: Recall[str, Recalled] = Recall(process.tail, process.memory, MOST)
    gone = fact("gone")
    process.memory.put(gone)
    process.memory.clear()
    process.memory.put(fact("gone"))
    answers.put("asked", kept(process, gone))
    assert answers.get("asked") is None


async def test_none_is_given_without_a_lease_or_after_its_time(process: Process) -> None:
    answers: Recall[str, Recalled] = Recall(process.tail, process.memory, MOST)
    held = fact("held")
    process.memory.put(held)
    answers.put("asked", kept(process, held))
    answers.put("until", kept(process, held, until_s=0.001))
    process.clock.at_s += 0.001
    assert answers.get("until") is None
    assert answers.get("asked") is not None
    process.clock.at_s = process.tail.state.fresh_until
    assert answers.get("asked") is None


async def test_without_room_the_oldest_goes_that_was_not_given_meanwhile(process: Process) -> None:
    answers: Recall[int, Recalled] = Recall(process.tail, process.memory, MOST)
    held = fact("held")
    process.memory.put(held)
    for n in range(MOST):
        answers.put(n, kept(process, held))
    asked = [0, 1, 3]
    assert all(answers.get(n) is not None for n in asked)
    for n in range(4):
        answers.put(MOST + n, kept(process, held))
        assert len(answers) == MOST
    assert [n for n in range(8) if answers.get(n) is None] == [2, 4, 5, 6]


async def test_that_all_were_given_again_does_not_make_the_next_wait(process: Process) -> None:
    """To spare each of a hundred thousand once would hold up the loop."""
    answers: Recall[int, Recalled] = Recall(process.tail, process.memory, MOST)
    held = fact("held")
    process.memory.put(held)
    for n in range(MOST):
        answers.put(n, kept(process, held))
    assert all(answers.get(n) is not None for n in range(MOST))
    answers.put(MOST, kept(process, held))
    assert [n for n in range(MOST + 1) if answers.get(n) is None] == [CHANCES]
