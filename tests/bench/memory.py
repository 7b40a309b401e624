"""`l1_bytes` and `poll_burst`: what facts take in memory, and for how long a large change keeps callers waiting.

Both are measured in this process, on the parts that a server is made of: from outside, one could not tell them from others.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time
from typing import Final

import asyncpg

from services.license import keys
from shared.clock import SystemClock
from shared.crypto import root_secret
from shared.crypto.hashing import SecretHasher
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from shared.facts.following import Following, following
from shared.facts.license import Wanted
from shared.facts.license_reader import LicenseFactsReader
from shared.garbage import keep_collections_short
from shared.tenancy import Mode, Tenant
from tests.bench.licensed import BATCH, Licensed, licensed
from tests.bench.load import NotRunError
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort

BYTES: Final = Goal("l1_bytes", Bound.MAX, 1.0, 0.5, "bytes")
BURST: Final = Goal("poll_burst", Bound.MAX, 1.0, 0.5, "ms")
GOALS: Final = (BYTES, BURST)
HELD: Final = 100_000
COUNTED: Final = 10_000
"""Enough for what a license takes: tracing memory makes everything slow."""
SLICES: Final = 5
SLICE_ROWS: Final = 19_000
"""So many one poll takes: more are not applied, but everything is dropped."""
LIMIT_BYTES: Final = 2048.0
LIMIT_MS: Final = 10.0
MEMORY_BYTES: Final = 2**30
PASSES: Final = 20
_CHANGE: Final = """
    UPDATE license.license SET revision = revision + 1 WHERE account_id = $1 AND mode = $2 AND license_id BETWEEN $3 AND $4
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """What holds facts in a server, and its licenses as the hot path asks for them."""

    known: Following
    facts: LicenseFactsReader
    tenant: Tenant
    wanted: Sequence[Wanted]

    async def hold(self, count: int) -> None:
        """Loads the first `count` of them, and has each answered from memory once. NotRunError when some are not held."""
        for start in range(0, count, BATCH):
            await self._hold(self.wanted[start : min(start + BATCH, count)])

    async def _hold(self, wanted: Sequence[Wanted]) -> None:
        for _ in range(PASSES):
            await self.facts.many(self.tenant, wanted)
            await self.known.reader.tail.poll()
            found = [self.facts.held(self.tenant, one) for one in wanted]
            if all(one is not None and one.facts is not None for one in found):
                return
        raise NotRunError(f"{len(wanted)} licenses were loaded {PASSES} times, and are not held")

    def gauge(self, name: str) -> float:
        """The value of one of its metrics."""
        found = (sample for one in self.known.collectors for metric in one.collect() for sample in metric.samples)
        return next(sample.value for sample in found if sample.name == name)


class Blocks:
    """The longest time for which the event loop let nobody else run.

    By the thread's own clock: what other processes take of the processor keeps callers waiting too, and says nothing of us.
    """

    def __init__(self) -> None:
        self.worked_ms = 0.0
        self.passed_ms = 0.0
        """The same by the clock on the wall."""
        self._over = False

    async def during(self, work: Awaitable[object]) -> None:
        """Watches until some work of others is done."""
        self._over = False
        watching = asyncio.create_task(self._watch())
        try:
            await work
        finally:
            self._over = True
            await watching

    async def _watch(self) -> None:
        worked, passed = thread_time(), perf_counter()
        while not self._over:
            await asyncio.sleep(0)
            worked_now, passed_now = thread_time(), perf_counter()
            self.worked_ms = max(self.worked_ms, (worked_now - worked) * 1000)
            self.passed_ms = max(self.passed_ms, (passed_now - passed) * 1000)
            worked, passed = worked_now, passed_now


async def run_memory(effort: Effort) -> list[Figure]:
    """Both on one record of as many licenses as are held."""
    with TemporaryDirectory() as name:
        async with licensed(Path(name), HELD) as suite:
            taken = await _bytes(suite, effort)
            let_be = keep_collections_short()  # as in a server
            try:
                return [*taken, *await _burst(suite, effort)]
            finally:
                let_be()


async def _bytes(suite: Licensed, effort: Effort) -> list[Figure]:
    taken: list[float] = []
    accounted: list[float] = []
    for _ in range(effort.rounds):
        async with _holder(suite) as holder:
            await holder.hold(1)  # what all have in common is there
            gc.collect()
            tracemalloc.start()
            try:
                said = holder.gauge("lictor_facts_held_bytes")
                await holder.hold(COUNTED)
                gc.collect()
                taken.append(tracemalloc.get_traced_memory()[0] / COUNTED)
            finally:
                tracemalloc.stop()
            accounted.append((holder.gauge("lictor_facts_held_bytes") - said) / COUNTED)
    return [
        Figure(BYTES, taken, [LIMIT_BYTES] * effort.rounds),
        Figure(information("l1_accounted", Bound.MIN, "bytes, those taken"), accounted, taken),
    ]


async def _burst(suite: Licensed, effort: Effort) -> list[Figure]:
    dropped: list[Blocks] = []
    applied: list[Blocks] = []
    for _ in range(effort.rounds):
        async with _holder(suite) as holder, suite.served.suite.admin() as admin:
            # The drop comes first: with it goes what a new tail has read of the changes of the round before.
            await holder.hold(HELD)
            dropped.append(await _changed(holder, admin, suite, HELD, 1))
            await holder.hold(HELD)
            applied.append(await _changed(holder, admin, suite, SLICE_ROWS, SLICES))
            if not holder.gauge("lictor_facts_held"):
                raise NotRunError(f"{SLICE_ROWS} changes at a time were not applied: everything was dropped")
    limits = [LIMIT_MS] * effort.rounds
    longest = [max(pair, key=lambda one: one.worked_ms) for pair in zip(dropped, applied, strict=True)]
    return [
        Figure(BURST, [one.worked_ms for one in longest], limits),
        Figure(information("poll_burst_applied", Bound.MAX, "ms"), [one.worked_ms for one in applied], limits),
        Figure(information("poll_burst_dropped", Bound.MAX, "ms"), [one.worked_ms for one in dropped], limits),
        Figure(information("poll_burst_wall", Bound.MAX, "ms"), [one.passed_ms for one in longest], limits),
    ]


async def _changed(holder: Holder, admin: asyncpg.Connection, suite: Licensed, rows: int, times: int) -> Blocks:
    """Changes so many licenses in one transaction, waits until the tail knows of it, and so on."""
    blocks = Blocks()
    ids = sorted(one.license_id for one in suite.issued)
    for n in range(times):
        some = ids[n * rows :][:rows]

        async def change(first: str, last: str) -> None:
            await admin.execute(_CHANGE, suite.world.account_id, Mode.TEST.value, first, last)
            await holder.known.reader.tail.poll()

        await blocks.during(change(some[0], some[-1]))
    return blocks


@asynccontextmanager
async def _holder(suite: Licensed) -> AsyncGenerator[Holder]:
    settings = suite.served.suite.settings
    hasher = SecretHasher(root_secret.load(settings.root_secret_file))
    wanted = [Wanted(hasher.candidates(keys.canonical(one.key)), None) for one in suite.issued]
    record = PostgresTarget(settings.postgres_dsn.get_secret_value())
    async with (
        Database.opened(record, Role.FACTS, size=1) as facts,
        following(record, SystemClock(), MEMORY_BYTES) as known,
    ):
        yield Holder(known, LicenseFactsReader(facts, known.reader), Tenant(suite.world.account_id, Mode.TEST), wanted)
