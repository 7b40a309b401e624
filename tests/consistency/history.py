"""Histories: what was asked and answered when, and how much of that no record whose promises hold can have done.

A *line* is one thing whose value the writes change: a license, a policy, whether a key is there. A write takes effect at
one moment between its beginning and its end, in all its lines at once. A read answers from one state of the record. That
state may be older than the read by `lag_s` at most, holds every write whose token was sent along, and holds every
restricting write that ended before the read began. Times are seconds of one clock that all processes share.

A read may say when that state held: after the state was taken and before the read ended. Reads out of one *memory* that say
the same time are of one state, a later time is that of a later state, and a memory never goes back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

Value = Mapping[str, object] | None
"""What a line holds, by field; None is nothing at all. A read may have seen some of the fields only."""

FOREVER: Final = math.inf
BEFORE_ALL: Final = -math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """One write. `end` None: nobody was told; it may have happened, at any time since `begin`, or not."""

    name: str
    begin: float
    end: float | None
    changes: Mapping[str, Value]
    restricting: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """One answer: the values that it shows of each line, all at once. `after` are the writes whose token it sent, `evaluated`
    is when it says that its state held, and `memory` names what it was made from; empty for the record."""

    name: str
    begin: float
    end: float
    seen: Mapping[str, Value]
    lag_s: float = 0.0
    after: tuple[Write, ...] = ()
    evaluated: float | None = None
    memory: str = ""

    @property
    def until(self) -> float:
        """The last moment whose state it may show."""
        return self.end if self.evaluated is None else min(self.end, self.evaluated)


@dataclass(frozen=True, slots=True)
class History:
    """What the lines held at first, and all that was done to them and seen of them; in no order. The clock that answers go by
    may be `slack_s` off."""

    initial: Mapping[str, Value]
    writes: Sequence[Write]
    reads: Sequence[Read]
    slack_s: float = 0.0


class Kind(StrEnum):
    """What can be wrong with an answer; the first that fits."""

    NEVER = "NEVER"
    """It shows what was never written."""
    FUTURE = "FUTURE"
    """It shows a write that began after it ended."""
    STALE = "STALE"
    """It shows what a restricting write that ended before it began has changed."""
    PASSED_TOKEN = "PASSED_TOKEN"
    """It shows what the write whose token it sent has changed."""
    LATE = "LATE"
    """It shows what was changed longer ago than it may be behind."""
    EVALUATED = "EVALUATED"
    """It says that its state held at a time at which no state did that it may show."""
    BACK = "BACK"
    """It says an earlier time than an answer before it out of the same memory."""
    MIXED = "MIXED"
    """It shows values that never were there together."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One answer that cannot be."""

    kind: Kind
    read: Read
    why: str


@dataclass(slots=True)
class Version:
    """A value of a line, from one write to the next. `made` None is the first value."""

    made: Write | None
    value: Value
    begin: float
    by: float
    """When it had been written, at the latest: known from its write's end, or from an answer that shows it."""
    stale_after: float = FOREVER
    """When the first restricting write after it ended."""
    over_after: float = FOREVER
    """When the first write after it ended."""
    gone_by: float = FOREVER
    """When it was there no more, at the latest."""

    def shows(self, seen: Value) -> bool:
        """Whether what was seen may have been this."""
        if seen is None or self.value is None:
            return seen is self.value
        return all(self.value.get(name, _ABSENT) == value for name, value in seen.items())


_ABSENT: Final = object()


class Line:
    """The versions of one line, by when they were begun."""

    def __init__(self, name: str, initial: Value) -> None:
        self.name = name
        self.versions = [Version(None, initial, BEFORE_ALL, BEFORE_ALL)]
        self._longest: list[float] = []

    def settle(self, seen_by: Mapping[Write, float]) -> None:
        """Works out until when each version was there. `seen_by`: when an answer first showed a write."""
        self.versions.sort(key=lambda version: version.begin)
        for version in self.versions[1:]:
            made = version.made
            assert made is not None
            version.by = min(_end(made), seen_by.get(made, FOREVER))
        # From the last to the first: all that begin after a version was there follow it.
        later = sorted(self.versions[1:], key=lambda version: version.begin, reverse=True)
        stale = over = gone = FOREVER
        for version in sorted(self.versions, key=lambda version: version.by, reverse=True):
            while later and later[0].begin > version.by:
                follower = later.pop(0)
                made = follower.made
                assert made is not None
                gone = min(gone, follower.by)
                over = min(over, _end(made))
                stale = min(stale, _end(made)) if made.restricting else stale
            version.stale_after, version.over_after, version.gone_by = stale, over, gone
        self._longest, longest = [], BEFORE_ALL
        for version in self.versions:
            longest = max(longest, version.gone_by)
            self._longest.append(longest)

    def near(self, since: float, until: float) -> list[Version]:
        """The versions that may have been there at some time of this span, the last first."""
        found: list[Version] = []
        for n in range(_after(self.versions, until) - 1, -1, -1):
            if self._longest[n] < since:
                break
            if self.versions[n].gone_by >= since:
                found.append(self.versions[n])
        return found


def _end(write: Write) -> float:
    return FOREVER if write.end is None else write.end


def _after(versions: Sequence[Version], moment: float) -> int:
    """How many begin no later than at that moment."""
    low, high = 0, len(versions)
    while low < high:
        middle = (low + high) // 2
        if versions[middle].begin <= moment:
            low = middle + 1
        else:
            high = middle
    return low


def lines_of(history: History) -> dict[str, Line]:
    """Every line with its versions, not settled yet."""
    lines = {name: Line(name, value) for name, value in history.initial.items()}
    for write in history.writes:
        for name, value in write.changes.items():
            lines[name].versions.append(Version(write, value, write.begin, _end(write)))
    return lines
