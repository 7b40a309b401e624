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
from shared.facts.beside import RedisFacts
from shared.freshness.memory import Memory
from shared.freshness.metrics import ReadMetrics, TailMetrics
from shared.freshness.poll import RecordSource
from shared.freshness.reader import Reader
from shared.freshness.redis_tier import RedisTier
from shared.freshness.tail import WINDOW_S, Tail

LOADS_ALONE_S: Final = 60.0
KINDS: Final = frozenset(
    {
        "account", "api_key", "component", "customer", "customer_session", "fingerprint", "key_set", "license", "license_key",
        "machine", "operator_key", "policy", "product", "seats", "signing_keys", "tier", "workload",
    }
)  # fmt: skip
"""What the change log may name. A change of another kind is of a newer version, and drops everything."""


@dataclass(frozen=True, slots=True)
class Following:
    """What a process reads its facts through, and what it counts."""

    reader: Reader
    collectors: Sequence[Collector]


@asynccontextmanager
async def following(
    record: PostgresTarget, clock: Clock, memory_bytes: int, tier: RedisTier | None = None
) -> AsyncGenerator[Following]:
    """Polls once, and then for as long as the block runs; closes `tier`, where there is one, in the end. DomainError, or
    what the driver raises, where the record cannot be asked."""
    memory = Memory(memory_bytes)
    tail_metrics, read_metrics = TailMetrics(memory), ReadMetrics()
    # Without a store beside the record only loads are let in, and those take seconds.
    window_s = WINDOW_S if tier is not None else LOADS_ALONE_S
    source = RecordSource(lambda: connected(record, Role.FACTS))
    tail = Tail(source, memory, KINDS, clock, tail_metrics, window_s=window_s)
    reader = Reader(tail, memory, read_metrics, None if tier is None else RedisFacts(tier))
    with translated():
        await tail.first()
    if tier is not None:
        tier.listen(tail.ask)
    polling = asyncio.create_task(tail.run(), name="tail")
    try:
        yield Following(reader, [*tail_metrics.collectors, *read_metrics.collectors])
    finally:
        await reader.close()
        if tier is not None:
            await tier.close()
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling
