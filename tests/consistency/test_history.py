"""The checker of histories finds what is wrong, all of it, and nothing else: by hand, and against every order there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings

from tests.consistency.checker import check
from tests.consistency.every_order import explained, small_histories
from tests.consistency.history import History, Kind, Read, Value, Write

OLD, NEW, NEWER = {"v": 0}, {"v": 1}, {"v": 2}


def write(begin: float, end: float | None, restricting: bool = False, **changes: Value) -> Write:
    return Write(f"w{begin}", begin, end, changes, restricting)


def read(begin: float, end: float, lag_s: float = 0.0, after: Sequence[Write] = (), **seen: Value) -> Read:
    return Read(f"r{begin}", begin, end, seen, lag_s, tuple(after))


def kinds(writes: Sequence[Write], *reads: Read) -> list[Kind]:
    """What is wrong with a history of the lines a, b and c, all OLD at first."""
    return [found.kind for found in check(History({"a": OLD, "b": OLD, "c": OLD}, writes, reads))]


LEASE = 5.0
A = write(10, 20, restricting=True, a=NEW)
A_LOOSE = write(10, 20, a=NEW)
A_LOST = write(10, None, restricting=True, a=NEW)
B = write(30, 40, restricting=True, b=NEW)
A_AGAIN = write(30, 40, restricting=True, a=NEWER)
B_LOOSE = write(21, 30, b=NEW)
BOTH = write(10, 20, restricting=True, a=NEW, b=NEW)


@pytest.mark.parametrize(
    ("writes", "one", "expected"),
    [
        # What a restricting write took away, around its end; a lease is no excuse.
        ([A], read(21, 22, a=OLD), Kind.STALE),
        ([A], read(21, 22, LEASE, a=OLD), Kind.STALE),
        ([A], read(21, 22, 1000, a=OLD), Kind.STALE),
        ([A], read(20, 22, LEASE, a=OLD), None),
        ([A], read(20.001, 22, LEASE, a=OLD), Kind.STALE),
        ([A], read(19, 30, a=OLD), None),
        ([A], read(1, 5, a=OLD), None),
        ([A], read(21, 22, a=NEW), None),
        # Too early.
        ([A], read(1, 9.999, a=NEW), Kind.FUTURE),
        ([A], read(1, 10, a=NEW), None),
        ([A], read(11, 12, a=NEW), None),
        ([A], read(21, 22, a=NEWER), Kind.NEVER),
        ([A], read(21, 22, a=None), Kind.NEVER),
        # What was given may be seen late, by the lease, and not with the token.
        ([A_LOOSE], read(21, 22, LEASE, a=OLD), None),
        ([A_LOOSE], read(25, 26, LEASE, a=OLD), None),
        ([A_LOOSE], read(25.001, 26, LEASE, a=OLD), Kind.LATE),
        ([A_LOOSE], read(21, 22, a=OLD), Kind.LATE),
        ([A_LOOSE], read(20, 22, a=OLD), None),
        ([A_LOOSE], read(21, 22, LEASE, [A_LOOSE], a=OLD), Kind.PASSED_TOKEN),
        ([A_LOOSE], read(21, 22, LEASE, [A_LOOSE], a=NEW), None),
        ([A_LOOSE, A_AGAIN], read(41, 42, LEASE, [A_LOOSE], a=OLD), Kind.STALE),
        # Nobody knows whether it happened.
        ([A_LOST], read(500, 501, a=OLD), None),
        ([A_LOST], read(500, 501, a=NEW), None),
        ([A_LOST], read(1, 9, a=NEW), Kind.FUTURE),
        ([A_LOST, A_AGAIN], read(500, 501, a=NEW), None),
        ([A_LOST, A_AGAIN], read(500, 501, a=OLD), Kind.STALE),
        ([A_LOST, A_AGAIN], read(500, 501, a=NEWER), None),
        # Two at once may have been in either order.
        ([A, write(15, 25, restricting=True, a=NEWER)], read(30, 31, a=NEW), None),
        ([A, write(15, 25, restricting=True, a=NEWER)], read(30, 31, a=NEWER), None),
        ([A, write(15, 25, restricting=True, a=NEWER)], read(30, 31, a=OLD), Kind.STALE),
        # Values that were never there together.
        ([BOTH], read(11, 12, a=NEW, b=OLD), Kind.MIXED),
        ([BOTH], read(11, 12, a=OLD, b=NEW), Kind.MIXED),
        ([BOTH], read(11, 12, a=NEW, b=NEW), None),
        ([BOTH], read(11, 12, a=OLD, b=OLD), None),
        ([A_LOOSE, write(21, 30, b=NEW)], read(22, 23, LEASE, a=OLD, b=NEW), Kind.MIXED),
        ([A_LOOSE, write(20, 30, b=NEW)], read(22, 23, LEASE, a=OLD, b=NEW), None),
        ([A_LOOSE, write(20, 30, b=NEW)], read(22, 23, LEASE, a=NEW, b=OLD), None),
        ([A, B], read(31, 32, LEASE, a=OLD, b=NEW), Kind.STALE),
        # A token stands for the whole state, and so does what is known to be over.
        ([A_LOOSE, write(21, 30, b=NEW)], read(22, 23, LEASE, [A_LOOSE], a=NEW, b=OLD), None),
        ([A_LOOSE, B_LOOSE], read(31, 32, 20, [B_LOOSE], a=OLD), Kind.LATE),
        ([A_LOOSE, B_LOOSE], read(31, 32, 20, [], a=OLD), None),
        ([A_LOOSE, write(21, 30, restricting=True, b=NEW)], read(31, 32, 20, a=OLD), Kind.LATE),
    ],
)  # fmt: skip
def test_one_answer(writes: list[Write], one: Read, expected: Kind | None) -> None:
    assert kinds(writes, one) == ([] if expected is None else [expected])


def test_fields_that_were_not_seen_do_not_matter() -> None:
    writes = [write(10, 20, restricting=True, a={"v": 1, "w": 1}), write(30, 40, restricting=True, a={"v": 1, "w": 2})]
    history = History({"a": {"v": 0, "w": 0}}, writes, [read(50, 51, a={"v": 1})])
    assert check(history) == []
    history = replace(history, reads=[read(50, 51, a={"w": 1}), read(50, 51, a={"u": 1})])
    assert [found.kind for found in check(history)] == [Kind.STALE, Kind.NEVER]


def test_a_value_that_comes_back_is_not_stale() -> None:
    writes = [A, write(30, 40, restricting=True, a=OLD)]
    assert kinds(writes, read(21, 22, a=OLD), read(31, 32, a=OLD), read(41, 42, a=OLD)) == [Kind.STALE]


def test_an_answer_tells_when_a_write_had_happened_that_ends_later() -> None:
    slow = write(10, 100, restricting=True, a=NEW)
    assert kinds([slow], read(20, 21, a=NEW), read(22, 23, a=OLD)) == [Kind.LATE]
    assert kinds([slow], read(20, 21, a=NEW), read(22, 23, LEASE, a=OLD)) == []
    assert kinds([slow, write(22, 30, b=NEW)], read(20, 21, a=NEW), read(22, 23, LEASE, a=OLD, b=NEW)) == [Kind.MIXED]
    lost = write(10, None, restricting=True, a=NEW)
    assert kinds([lost], read(20, 21, a=NEW), read(500, 501, a=OLD)) == [Kind.LATE]


def test_answers_that_contradict_each_other() -> None:
    writes = [write(10, 50, a=NEW), write(11, 50, b=NEW)]
    one, other = read(20, 40, a=NEW, b=OLD), read(20, 40, a=OLD, b=NEW)
    assert kinds(writes, one) == []
    assert kinds(writes, other) == []
    assert kinds(writes, one, other) == [Kind.MIXED]


def test_a_circle_of_three() -> None:
    writes = [write(10, 50, a=NEW), write(10, 50, b=NEW), write(10, 50, c=NEW)]
    reads = [read(20, 40, a=NEW, b=OLD), read(20, 40, b=NEW, c=OLD), read(20, 40, c=NEW, a=OLD)]
    assert kinds(writes, *reads[:2]) == []
    assert kinds(writes, *reads) == [Kind.MIXED]


# Against every order there is.


@given(small_histories(one_after_the_other=True))
@settings(max_examples=500, deadline=None)
def test_it_finds_exactly_what_no_order_explains(history: History) -> None:
    assert (check(history) == []) == explained(history)


@given(small_histories(one_after_the_other=False))
@settings(max_examples=500, deadline=None)
def test_it_never_blames_what_an_order_explains(history: History) -> None:
    if explained(history):
        assert check(history) == []


# Long ones, as a record makes them.


def lived(random: Random, *, writes: int, reads: int) -> History:
    """What a record with a lease would do: a write takes effect inside its span, restricting ones wait for the lease."""
    lease = 25.0
    lines = [f"line{n}" for n in range(6)]
    free = dict.fromkeys(lines, 0.0)
    states: list[tuple[float, dict[str, Value]]] = [(-math.inf, {line: {"v": 0} for line in lines})]
    planned: list[tuple[float, Write]] = []
    for n in range(1, writes + 1):
        changed = random.sample(lines, random.choice((1, 1, 2)))
        begin = max(free[line] for line in changed) + random.uniform(0.1, 40)
        commit = begin + random.uniform(0, 9)
        restricting, lost = random.random() < 0.6, random.random() < 0.1
        told = commit + random.uniform(0, 3) + (lease if restricting else 0)
        changes: dict[str, Value] = {line: None if n % 5 == 0 else {"v": n} for line in changed}
        made = Write(f"w{n}", begin, None if lost else told, changes, restricting)
        free |= dict.fromkeys(changed, told)
        planned.append((commit, made))
    for commit, made in sorted(planned, key=lambda each: each[0]):
        states.append((commit, {**states[-1][1], **made.changes}))
    answers: list[Read] = []
    for n in range(reads):
        begin = random.uniform(0, states[-1][0])
        end = begin + random.uniform(0, 4)
        lag = random.choice((0.0, lease))
        at = random.uniform(begin - lag, end)
        state = next(state for since, state in reversed(states) if since <= at)
        seen = {line: state[line] for line in random.sample(lines, 4)}
        answers.append(Read(f"r{n}", begin, end, seen, lag))
    return History(states[0][1], [made for _, made in planned], answers)


@pytest.mark.parametrize("seed", range(6))
def test_a_record_that_keeps_its_promises_is_never_blamed(seed: int) -> None:
    assert check(lived(Random(seed), writes=300, reads=3000)) == []


@pytest.mark.parametrize("seed", range(6))
def test_one_bad_answer_among_thousands_is_found(seed: int) -> None:
    random = Random(seed)
    history = lived(random, writes=300, reads=3000)
    told = [made for made in history.writes if made.restricting and made.end is not None]
    sure = [one for one in told if any(value is not None for value in one.changes.values())]
    made = random.choice(sure)
    (line, value), *_ = ((line, value) for line, value in made.changes.items() if value is not None)
    later = [one for one in told if one is not made and one.begin > (made.end or 0) and line in one.changes]
    early = Read("early", made.begin - 30, made.begin - 0.5, {line: value})
    wrong = [early] if not later else [early, Read("stale", (later[0].end or 0) + 0.01, math.inf, {line: value}, 25.0)]
    for bad in wrong:
        found = check(replace(history, reads=[*history.reads, bad]))
        assert [one.read.name for one in found] == [bad.name]
