"""Finds the answers of a history that no record whose promises hold can have given."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from tests.consistency.history import (
    BEFORE_ALL,
    FOREVER,
    Anomaly,
    History,
    Kind,
    Line,
    Read,
    Value,
    Version,
    Write,
    lines_of,
)
from tests.consistency.moments import as_states, of_another_time
from tests.consistency.ordering import Shown, knots


def check(history: History) -> list[Anomaly]:
    """All that is wrong; empty where one order of all writes and answers explains everything.

    Nothing that can be explained is ever found wrong. The other way round it holds where what was seen names one write
    (no two writes of a line make it look the same), and where no two writes of a line overlap.
    """
    return _Checker(history).run()


class _Checker:
    def __init__(self, history: History) -> None:
        self._history = history
        self._lines = lines_of(history)
        restricting = sorted((w.end, w.begin) for w in history.writes if w.restricting and w.end is not None)
        self._ends = [end for end, _ in restricting]
        self._begins: list[float] = [BEFORE_ALL]
        for _, begin in restricting:
            self._begins.append(max(self._begins[-1], begin))

    def run(self) -> list[Anomaly]:
        reads, found = as_states(self._history.reads)
        for line in self._lines.values():
            line.settle({})
        seen_by: dict[Write, float] = {}
        for read in reads:
            for versions in self._shown(read).values():
                if len(versions) == 1 and (made := versions[0].made) is not None:
                    seen_by[made] = min(seen_by.get(made, FOREVER), self._until(read))
        for line in self._lines.values():
            line.settle(seen_by)
        shown: list[Shown] = []
        for read in reads:
            candidates = self._shown(read)
            wrong = self._judge(read, candidates)
            if wrong is not None:
                found.append(wrong)
            else:
                shown.append(Shown(read, tuple(each[0] for each in candidates.values() if len(each) == 1)))
        for read, why in knots(self._lines, self._history.writes, shown, self._until):
            found.append(Anomaly(Kind.MIXED, read, why))
        return found

    def _since(self, read: Read) -> float:
        """The earliest moment whose state the read may show."""
        restricted = self._begins[bisect_left(self._ends, read.begin)]
        return max(read.begin - read.lag_s, restricted, *(write.begin for write in read.after))

    def _until(self, read: Read) -> float:
        """The latest one."""
        return min(read.end, read.until + self._history.slack_s)

    def _shown(self, read: Read) -> dict[str, list[Version]]:
        """For each line what the read can have seen, by itself."""
        since = self._since(read)
        return {
            name: [
                version
                for version in self._lines[name].near(since, self._until(read))
                if version.shows(value) and _blame(version, read, self._lines[name]) is None
            ]
            for name, value in read.seen.items()
        }

    def _judge(self, read: Read, candidates: dict[str, list[Version]]) -> Anomaly | None:
        wrong = of_another_time(read, self._since(read), self._history.slack_s)
        if wrong is not None:
            return wrong
        for name, value in read.seen.items():
            if not candidates[name]:
                return self._alone(read, self._lines[name], value)
        spans = [(self._since(read), self._until(read))]
        for found in candidates.values():
            spans = [
                (max(low, version.begin), min(high, version.gone_by))
                for low, high in spans
                for version in found
                if max(low, version.begin) <= min(high, version.gone_by)
            ]
            spans = sorted(set(spans))
        if spans:
            return None
        return Anomaly(Kind.MIXED, read, f"never there together: {_told(candidates)}")

    def _alone(self, read: Read, line: Line, value: Value) -> Anomaly:
        """Why none of a line's versions can be what the read has seen."""
        same = [version for version in line.versions if version.shows(value)]
        if not same:
            return Anomaly(Kind.NEVER, read, f"{line.name} never was {value}")
        until = self._until(read)
        last = max(same, key=lambda version: (version.begin <= until, version.begin))
        if last.begin > until:
            return Anomaly(Kind.FUTURE, read, f"{line.name} was {value} only {last.begin - until:.6f} s later")
        return Anomaly(_blame(last, read, line) or Kind.LATE, read, f"{line.name} was {value} no more: {_span(last)}")


def _blame(version: Version, read: Read, line: Line) -> Kind | None:
    """Why the read may not show this version of a line any more."""
    if version.stale_after < read.begin:
        return Kind.STALE
    if any(line.name in write.changes and version.by < write.begin for write in read.after):
        return Kind.PASSED_TOKEN
    return Kind.LATE if version.over_after < read.begin - read.lag_s else None


def _span(version: Version) -> str:
    name = "at first" if version.made is None else version.made.name
    return f"{name} from {version.begin:.6f} until {version.gone_by:.6f}"


def _told(candidates: dict[str, list[Version]]) -> str:
    return "; ".join(f"{name}: {', '.join(map(_span, found))}" for name, found in candidates.items())


def counted(anomalies: Sequence[Anomaly]) -> dict[Kind, int]:
    """How many there are of each kind."""
    return {kind: sum(one.kind is kind for one in anomalies) for kind in Kind}
