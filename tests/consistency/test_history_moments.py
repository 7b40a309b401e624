"""The checker of histories looks at what answers say of when they held, and finds what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.consistency.checker import check
from tests.consistency.every_order import explained, small_histories
from tests.consistency.history import History, Kind, Read, Value, Write

OLD, NEW = {"v": 0}, {"v": 1}
LEASE = 5.0
A = Write("takes", 10, 20, {"a": NEW}, restricting=True)
A_LOOSE = Write("gives", 10, 20, {"a": NEW})
B_LOOSE = Write("gives b", 10, 20, {"b": NEW})


def read(begin: float, at: float, memory: str = "one", after: Sequence[Write] = (), **seen: Value) -> Read:
    """An answer of one second, under a lease unless the record gave it, that says when it held."""
    return Read(f"r{begin}", begin, begin + 1, seen, LEASE if memory else 0.0, tuple(after), at, memory)


def kinds(writes: Sequence[Write], *reads: Read, slack_s: float = 0.0) -> list[Kind]:
    return [found.kind for found in check(History({"a": OLD, "b": OLD}, writes, reads, slack_s))]


@pytest.mark.parametrize(
    ("writes", "one", "expected"),
    [
        # From a lease before the question to the end of the answer.
        ([], read(100, 95, a=OLD), None),
        ([], read(100, 94.999, a=OLD), Kind.EVALUATED),
        ([], read(100, 101, a=OLD), None),
        ([], read(100, 101.001, a=OLD), Kind.EVALUATED),
        # What the record answers holds since the question.
        ([], read(100, 100, "", a=OLD), None),
        ([], read(100, 99.999, "", a=OLD), Kind.EVALUATED),
        # Whoever knows of a write is not from before it.
        ([A], read(21, 9.999, a=NEW), Kind.EVALUATED),
        ([A], read(21, 16, a=NEW), None),
        ([Write("takes", 18, 20, {"a": NEW}, restricting=True)], read(21, 17.999, a=NEW), Kind.EVALUATED),
        ([Write("takes", 18, 20, {"a": NEW}, restricting=True)], read(21, 18, a=NEW), None),
        ([Write("gives", 18, 20, {"a": NEW})], read(21, 17, a=OLD), None),
        ([gives := Write("gives", 18, 20, {"a": NEW})], read(21, 17, after=[gives], a=NEW), Kind.EVALUATED),
        # What it shows had happened by then.
        ([A_LOOSE], read(11, 9, a=NEW), Kind.FUTURE),
        ([A_LOOSE], read(11, 10, a=NEW), None),
        ([A_LOOSE], read(11, 9, a=OLD), None),
    ],
)
def test_one_answer(writes: list[Write], one: Read, expected: Kind | None) -> None:
    assert kinds(writes, one) == ([] if expected is None else [expected])


def test_a_clock_may_be_off_by_so_much() -> None:
    assert kinds([], read(100, 94.9, a=OLD), slack_s=0.1) == []
    assert kinds([], read(100, 94.8, a=OLD), slack_s=0.1) == [Kind.EVALUATED]
    assert kinds([A_LOOSE], read(11, 9.9, a=NEW), slack_s=0.1) == []
    assert kinds([A_LOOSE], read(11, 9.8, a=NEW), slack_s=0.1) == [Kind.FUTURE]


def test_answers_out_of_one_memory_that_say_the_same_time_are_of_one_state() -> None:
    """Each alone may be as it is: the write is under way."""
    old, new = read(11, 11, a=OLD), read(11.5, 11, a=NEW)
    assert kinds([A_LOOSE], old) == kinds([A_LOOSE], new) == []
    assert kinds([A_LOOSE], old, new) == [Kind.MIXED]
    assert kinds([A_LOOSE], old, replace(new, memory="other")) == []
    assert kinds([A_LOOSE], old, replace(new, memory="", evaluated=11.6)) == []
    assert kinds([A_LOOSE], read(11, 11, a=None), new) == [Kind.MIXED, Kind.NEVER]
    fields = [{"v": 1, "w": 1}, {"v": 1}, {"w": 1}]
    both = Write("gives", 10, 20, {"a": fields[0]})
    assert kinds([both], *(read(11 + n / 10, 11, a=one) for n, one in enumerate(fields))) == []


def test_a_later_time_is_of_a_later_state() -> None:
    """Two answers at once, of which the one that says the later time knows less."""
    new, old = read(12, 12, a=NEW), read(12, 12.5, a=OLD)
    assert kinds([A_LOOSE], new, old) == [Kind.MIXED]
    assert kinds([A_LOOSE], new, replace(old, memory="other")) == []
    assert kinds([A_LOOSE], replace(new, evaluated=12.5), replace(old, evaluated=12)) == []
    crossed = [read(12, 12, a=NEW, b=OLD), read(12, 12.5, a=NEW, b=NEW), read(12, 12.7, b=OLD)]
    assert kinds([A_LOOSE, B_LOOSE], *crossed[:2]) == []
    assert kinds([A_LOOSE, B_LOOSE], *crossed) == [Kind.MIXED]


def test_a_memory_never_goes_back() -> None:
    first, then = read(100, 99, a=OLD), read(102, 98.5, a=OLD)
    assert kinds([], first, then) == [Kind.BACK]
    assert kinds([], first, replace(then, evaluated=99)) == []
    assert kinds([], first, replace(then, memory="other")) == []
    assert kinds([], replace(first, memory="", evaluated=100), then) == [], "the record may be ahead of a memory"
    assert kinds([], first, replace(then, begin=101)) == [], "they overlap: the one may have been answered later"


@given(small_histories(one_after_the_other=True, telling=True))
@settings(max_examples=500, deadline=None)
def test_it_finds_exactly_what_no_order_explains(history: History) -> None:
    assert (check(history) == []) == explained(history)


@given(small_histories(one_after_the_other=False, telling=True))
@settings(max_examples=300, deadline=None)
def test_it_never_blames_what_an_order_explains(history: History) -> None:
    if explained(history):
        assert check(history) == []
