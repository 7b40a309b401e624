"""What a process counts of its use of Redis."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from prometheus_client import Counter
from prometheus_client.registry import Collector

from shared.freshness.sealed_entry import Refusal


class Get(StrEnum):
    """How a get ended, besides a `Refusal`. All but a hit are misses."""

    HIT = "hit"
    ABSENT = "absent"
    FAILED = "failed"
    """Redis did not answer in time, or with an error."""
    SKIPPED = "skipped"
    """Redis was not asked: it is left alone for a while, or too many gets wait."""


class Put(StrEnum):
    """How a put ended."""

    STORED = "stored"
    FAILED = "failed"
    """Redis did not confirm in time, or refused."""
    DROPPED = "dropped"
    """Not sent: too large, too many wait, replaced by a later one, or Redis is left alone for a while."""


class TierMetrics:
    """One instance per process, shown by its exposition."""

    def __init__(self) -> None:
        gets = Counter("lictor_redis_gets", "Gets of facts from Redis by how they ended.", ["outcome"], registry=None)
        puts = Counter("lictor_redis_puts", "Puts of facts to Redis by how they ended.", ["outcome"], registry=None)
        self.gets = {outcome: gets.labels(outcome) for outcome in (*Get, *Refusal)}
        self.puts = {outcome: puts.labels(outcome) for outcome in Put}
        self.hints = Counter("lictor_redis_hints", "Wake-up hints that came over Redis.", registry=None)
        self.collectors: Sequence[Collector] = (gets, puts, self.hints)
