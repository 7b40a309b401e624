"""What answers say of when their states held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tests.consistency.history import BEFORE_ALL, Anomaly, Kind, Read, Value

_ROUNDING_S: Final = 1e-6
"""Postgres tells microseconds."""


def of_another_time(read: Read, since: float, slack_s: float) -> Anomaly | None:
    """Whether an answer says that its state held before any that it may show, `since`, or only after its end."""
    at = read.evaluated
    if at is None or since - slack_s <= at <= read.end + slack_s:
        return None
    off = f"{since - at:.6f} s too early" if at < since else f"{at - read.end:.6f} s after its end"
    return Anomaly(Kind.EVALUATED, read, f"it says {at:.6f}, {off}")


def as_states(reads: Sequence[Read]) -> tuple[list[Read], list[Anomaly]]:
    """Answers of one state as one, which shows all that they show; and those that cannot be of one, or of an older one."""
    found = [read for read in reads if not read.memory]
    wrong: list[Anomaly] = []
    memories: dict[str, dict[float, list[Read]]] = defaultdict(lambda: defaultdict(list))
    for read in reads:
        if read.memory:
            assert read.evaluated is not None
            memories[read.memory][read.evaluated].append(read)
    for states in memories.values():
        for same in states.values():
            merged, torn = _merged(same)
            found.append(merged)
            wrong += torn
        wrong += _gone_back([read for same in states.values() for read in same])
    return found, wrong


def _merged(reads: Sequence[Read]) -> tuple[Read, list[Anomaly]]:
    """All of one state. It held long enough for the last of them, and knows what any of them has to know."""
    begin, wrong = max(read.begin for read in reads), list[Anomaly]()
    since = max(read.begin - read.lag_s for read in reads)
    seen: dict[str, Value] = {}
    for read in reads:
        for line, value in read.seen.items():
            known = seen.setdefault(line, value)
            if known is None or value is None:
                if known is not value:
                    wrong.append(_torn(read, line, known, value))
            elif any(known.get(name, one) != one for name, one in value.items()):
                wrong.append(_torn(read, line, known, value))
            else:
                seen[line] = {**known, **value}
    after = tuple(dict.fromkeys(write for read in reads for write in read.after))
    end = min(read.end for read in reads)
    return replace(reads[0], begin=begin, end=end, lag_s=begin - since, seen=seen, after=after), wrong


def _torn(read: Read, line: str, known: Value, value: Value) -> Anomaly:
    return Anomaly(Kind.MIXED, read, f"of one state, by its time, in which {line} was {known} and {value}")


def _gone_back(reads: Sequence[Read]) -> list[Anomaly]:
    """Those that say an earlier time than one that had ended before they began."""
    ended = sorted(reads, key=lambda read: read.end)
    wrong: list[Anomaly] = []
    last, n = BEFORE_ALL, 0
    for read in sorted(reads, key=lambda read: read.begin):
        while ended[n].end < read.begin:
            last, n = max(last, ended[n].evaluated or last), n + 1
        if read.evaluated is not None and read.evaluated < last - _ROUNDING_S:
            wrong.append(
                Anomaly(Kind.BACK, read, f"it says {read.evaluated:.6f}, {last - read.evaluated:.6f} s earlier")
            )
    return wrong
