"""Hammers several processes for a while, lets a fault loose on them meanwhile, and tells what was wrong with their answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

import asyncpg

from tests.consistency.checker import check, counted
from tests.consistency.eyes import Eyes
from tests.consistency.fleet import Fleet
from tests.consistency.hands import Hands
from tests.consistency.history import Kind
from tests.consistency.machine_hands import MAY_BE_OVER
from tests.consistency.scene import Scene
from tests.consistency.setting import set_up

Fault = Callable[[Scene, asyncio.Event], Awaitable[None]]
"""Breaks things until the event is set, and mends them then."""


@dataclass(frozen=True)
class Tally:
    """What came of it."""

    answers: int
    machines: int
    """Answers about a machine that has a seat."""
    processes: int
    """Answers that say that more processes run than may."""
    leases: int
    """Answers about one whose lease ends by itself."""
    reads: int
    writes: int
    lost: int
    """Writes of which nobody ever told how they ended."""
    anomalies: dict[Kind, int]
    examples: list[str]
    torn: list[str]
    sources: Counter[str]
    shown: Counter[str]
    told: Counter[str]
    """Writes by method, of which somebody was told."""
    refusals: Counter[str]
    took_s: float

    @property
    def wrong(self) -> int:
        return sum(self.anomalies.values()) + len(self.torn)

    def in_words(self) -> str:
        bad = " ".join(f"{kind.lower()} {n}" for kind, n in self.anomalies.items())
        shown = " ".join(f"{name} {n}" for name, n in sorted(self.shown.items()))
        sources = " ".join(f"{name} {n}" for name, n in sorted(self.sources.items()))
        return (
            f"{self.answers} answers ({self.machines} of machines, {self.processes} of too many processes, "
            f"{self.leases} of ending leases) in {self.reads} reads "
            f"({sources}), "
            f"{self.writes} writes, {self.lost} of them lost, "
            f"{self.took_s:.0f} s: {bad}, torn {len(self.torn)}; {self.refusals.total()} refusals; by {shown}"
        )


async def lease_of(admin_dsn: str) -> float:
    """How long a process may answer from what it holds, in seconds."""
    conn = await asyncpg.connect(admin_dsn)
    try:
        return await conn.fetchval("SELECT l_ms FROM record.lease") / 1000
    finally:
        await conn.close()


async def hammer(fleet: Fleet, seed: int, for_s: float, fault: Fault | None = None) -> Tally:
    """A fresh account is read and written by many for so long, and then judged."""
    scene = await set_up(fleet, Random(seed), await lease_of(fleet.admin_dsn))
    stop, began = asyncio.Event(), time.monotonic()
    async with asyncio.TaskGroup() as around:
        if fault is not None:
            around.create_task(_run(fault(scene, stop)))
        async with asyncio.TaskGroup() as group:
            for work in (*Hands(scene, stop).tasks(), *Eyes(scene, stop).tasks()):
                group.create_task(_run(work))
            await asyncio.sleep(for_s)
            stop.set()
        scene.over.set()
    return judged(scene, time.monotonic() - began)


async def _run(work: Awaitable[None]) -> None:
    await work


def judged(scene: Scene, took_s: float) -> Tally:
    """The verdict on all that was answered."""
    ledger = scene.ledger
    found = check(ledger.history())
    examples = [f"{one.kind} {one.read.name} at {one.read.begin:.6f} to {one.read.end:.6f}: {one.why}" for one in found]
    return Tally(
        answers=ledger.answers,
        machines=ledger.machines,
        processes=ledger.processes,
        leases=ledger.leases,
        reads=len(ledger.reads),
        writes=len(ledger.writes),
        lost=sum(write.end is None and write.name != MAY_BE_OVER for write in ledger.writes),
        anomalies=counted(found),
        examples=examples[:20],
        torn=ledger.torn,
        sources=ledger.sources,
        shown=ledger.shown,
        told=Counter(write.name for write in ledger.writes if write.end is not None),
        refusals=ledger.refusals,
        took_s=took_s,
    )
