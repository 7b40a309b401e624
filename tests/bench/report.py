"""What a bench says: a line of JSON and a row of a table for each figure, and whether all is well."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias, assert_never

QUOTABLE_ROUNDS: Final = 5
"""A figure of fewer rounds is for trying things out."""


class Bound(StrEnum):
    """On which side of a figure its bounds are."""

    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of a figure: the ratio that it must keep to, and the one aimed at; None for information only."""

    name: str
    bound: Bound
    must: float | None
    aim: float | None
    unit: str
    """Of `value` and `baseline`."""

    def keeps(self, ratio: float, to: float) -> bool:
        match self.bound:
            case Bound.MIN:
                return ratio >= to
            case Bound.MAX:
                return ratio <= to
            case _ as never:
                assert_never(never)


def information(name: str, bound: Bound, unit: str) -> Goal:
    """A figure that is told and not judged."""
    return Goal(name, bound, None, None, unit)


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured ratio. `values` and `baselines` are in the order of the rounds, at least one of each."""

    goal: Goal
    values: Sequence[float]
    baselines: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Each round's value by the same round's baseline: what disturbs the machine for longer disturbs both."""
        return [value / baseline for value, baseline in zip(self.values, self.baselines, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def missed(self) -> bool:
        return self.goal.must is not None and not self.goal.keeps(self.ratio, self.goal.must)

    @property
    def verdict(self) -> str:
        if self.goal.must is None:
            return "information"
        if self.missed:
            return "MISSED"
        return "aim met" if self.goal.aim is not None and self.goal.keeps(self.ratio, self.goal.aim) else "met"


@dataclass(frozen=True, slots=True)
class NotRun:
    """A figure that there is none of, and why."""

    goal: Goal
    why: str


Result: TypeAlias = Figure | NotRun


def exit_status(results: Iterable[Result]) -> int:
    """0 when every figure was measured and none misses what it must keep to."""
    return int(any(isinstance(result, NotRun) or result.missed for result in results))


def record(result: Result) -> dict[str, str | float | int | None]:
    """The line of JSON as a mapping. What did not run has no rounds, and null for every figure."""
    goal = result.goal
    line: dict[str, str | float | int | None] = {
        "name": goal.name, "ratio": None, "must": goal.must, "aim": goal.aim, "bound": goal.bound.value,
        "value": None, "baseline": None, "unit": goal.unit, "rounds": 0, "low": None, "high": None,
    }  # fmt: skip
    if isinstance(result, Figure):
        line |= {
            "ratio": _short(result.ratio), "value": _short(median(result.values)),
            "baseline": _short(median(result.baselines)), "rounds": len(result.ratios),
            "low": _short(min(result.ratios)), "high": _short(max(result.ratios)),
        }  # fmt: skip
    return line


def write(results: Iterable[Result], path: Path) -> None:
    """Writes the lines anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record(result)) + "\n" for result in results))


def table(results: Sequence[Result]) -> str:
    """The figures for people."""
    head = ("name", "ratio", "low - high", "must", "aim", "value", "baseline", "unit", "")
    rows = [head, *(_row(result) for result in results)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    rounds = max((len(result.ratios) for result in results if isinstance(result, Figure)), default=QUOTABLE_ROUNDS)
    if rounds < QUOTABLE_ROUNDS:
        lines.append(f"fewer than {QUOTABLE_ROUNDS} rounds: for trying things out, not to be quoted")
    return "\n".join(lines)


def _row(result: Result) -> tuple[str, ...]:
    goal = result.goal
    sign = {Bound.MIN: ">=", Bound.MAX: "<="}[goal.bound]
    must, aim = (f"{sign} {bound:g}" if bound is not None else "" for bound in (goal.must, goal.aim))
    if isinstance(result, NotRun):
        return (goal.name, "", "", must, aim, "", "", goal.unit, f"not run: {result.why}")
    ratios = result.ratios
    return (
        goal.name, f"{result.ratio:.3g}", f"{min(ratios):.3g} - {max(ratios):.3g}", must, aim,
        f"{_short(median(result.values)):,}", f"{_short(median(result.baselines)):,}", goal.unit, result.verdict,
    )  # fmt: skip


def _short(number: float) -> float:
    """Four digits say all that a busy machine can."""
    return float(f"{number:.4g}")
