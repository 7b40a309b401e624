"""Every figure that the bench judges stands in docs/performance.md, with what it must keep to and what is aimed at."""

from __future__ import annotations

import pytest

from tests.bench.__main__ import ENTRIES
from tests.bench.report import Bound, Goal
from tests.helpers.embedded import TREE

GOALS = {goal.name: goal for entry in ENTRIES.values() for goal in entry.goals if not goal.name.endswith("_writes")}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (TREE / "docs" / "performance.md").read_text().splitlines()
    if line.startswith("| `")
]


@pytest.mark.parametrize("goal", GOALS.values(), ids=list(GOALS))
def test_it_is_in_the_table(goal: Goal) -> None:
    side = {Bound.MIN: "at least", Bound.MAX: "at most"}[goal.bound]
    [row] = [row for row in ROWS if f"`{goal.name}`" in row[0].split(", ") and len(row) == 5]
    bound, aim = row[3:]
    assert bound.startswith(f"{side} ")
    assert float(bound.removeprefix(side)) == goal.must
    assert (float(aim) if aim else None) == goal.aim
