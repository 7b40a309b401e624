"""A process's memory of facts, and the tail that keeps it true: opened with the process, closed with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from prometheus_client.registry import Collector

from shared.clock import Clock
from shared.db.faults import translated
from shared.db.pool import PostgresTarget, connected
from shared.db.roles import Role
from shared.freshness.memory import Memory
from shared.freshness.metrics import ReadMetrics, TailMetrics
from shared.freshness.poll import RecordSource
from shared.freshness.reader import Reader
from shared.freshness.tail import Tail

KINDS: Final = frozenset(
    {
        "account", "api_key", "customer", "customer_session", "license", "license_key", "operator_key", "policy",
        "product", "tier", "workload",
    }
)  # fmt: skip
"""What the change log may name. A change of another kind is of a newer version, and drops everything."""


@dataclass(frozen=True, slots=True)
class Following:
    """What a process reads its facts through, and what it counts."""

    reader: Reader
    collectors: Sequence[Collector]


@asynccontextmanager
async def following(record: PostgresTarget, clock: Clock, memory_bytes: int) -> AsyncGenerator[Following]:
    """Polls once, and then for as long as the block runs. DomainError, or what the driver raises, where the record cannot
    be asked."""
    memory = Memory(memory_bytes)
    tail_metrics, read_metrics = TailMetrics(memory), ReadMetrics()
    tail = Tail(RecordSource(lambda: connected(record, Role.FACTS)), memory, KINDS, clock, tail_metrics)
    reader = Reader(tail, memory, read_metrics)
    with translated():
        await tail.first()
    polling = asyncio.create_task(tail.run(), name="tail")
    try:
        yield Following(reader, [*tail_metrics.collectors, *read_metrics.collectors])
    finally:
        await reader.close()
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling
