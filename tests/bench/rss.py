"""`rss_100k`: the memory of a server that holds 100,000 licenses."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench import processes
from tests.bench.licensed import licensed
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort

GOAL: Final = Goal("rss_100k", Bound.MAX, 1.0, 0.7, "MB")
GOALS: Final = (GOAL,)
HELD: Final = 100_000
LIMIT_MB: Final = 350.0
HOLDER: Final = "envoy"
MB: Final = 1_000_000


async def run_rss(effort: Effort) -> list[Figure]:
    """A fresh server in each round, asked for each of the licenses once, and again."""
    fresh: list[float] = []
    full: list[float] = []
    again: list[float] = []
    everything: list[float] = []
    with TemporaryDirectory() as name:
        for _ in range(effort.rounds):
            async with licensed(Path(name), min(effort.calls or HELD, HELD)) as suite:
                family = processes.family(suite.served.process.pid)
                [holder] = [pid for pid, program in family.items() if program == HOLDER]
                fresh.append(processes.rss_bytes(holder) / MB)
                await suite.hold_facts(suite.issued)
                full.append(processes.rss_bytes(holder) / MB)
                everything.append(sum(map(processes.rss_bytes, family)) / MB)
                await suite.hold(suite.issued)
                again.append(processes.rss_bytes(holder) / MB)
    limits = [LIMIT_MB] * effort.rounds
    return [
        Figure(GOAL, full, limits),
        Figure(information("rss_fresh", Bound.MAX, "MB"), fresh, limits),
        Figure(information("rss_100k_again", Bound.MAX, "MB"), again, limits),
        Figure(information("rss_100k_with_parent", Bound.MAX, "MB"), everything, limits),
    ]
