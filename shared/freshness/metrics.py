"""What freshness costs and how it fares, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import Collector

from shared.freshness.memory import Memory

_POLL_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.125, 0.25, 1.0)


class TailMetrics:
    """Metrics of one process's tail."""

    def __init__(self, memory: Memory) -> None:
        self.failed = Counter("lictor_tail_failed_polls", "Polls that the record did not answer in time", registry=None)
        self.dropped = Counter("lictor_tail_drops", "Times that all facts were dropped", ("why",), registry=None)
        self.refused = Counter(
            "lictor_facts_refused", "Facts that had changed before they could be held", registry=None
        )
        self._poll_s = Histogram(
            "lictor_tail_poll_seconds", "How long polls took, all applied", registry=None, buckets=_POLL_S
        )
        self._changes = Counter("lictor_tail_changes", "Changes that polls brought", registry=None)
        held = Gauge("lictor_facts_held", "Facts in memory", registry=None)
        held.set_function(lambda: len(memory))
        size = Gauge("lictor_facts_held_bytes", "About what they take", registry=None)
        size.set_function(lambda: memory.size_bytes)
        self.lapsed = Counter("lictor_lease_lapses", "Times that a lease ran out before the next one", registry=None)
        self._age = Gauge("lictor_tail_state_age_seconds", "How old the state is that memory has", registry=None)
        self.collectors: Sequence[Collector] = (
            self.failed, self.dropped, self.refused, self._poll_s, self._changes, held, size, self._age, self.lapsed,
        )  # fmt: skip

    def watch_age(self, age_s: Callable[[], float]) -> None:
        """Reads `lictor_tail_state_age_seconds` from `age_s` at each scrape."""
        self._age.set_function(age_s)

    def polled(self, seconds: float, changes: int) -> None:
        """A poll went well."""
        self._poll_s.observe(seconds)
        if changes:
            self._changes.inc(changes)


class ReadMetrics:
    """Metrics of one process's reads."""

    def __init__(self) -> None:
        self.loads = Counter("lictor_facts_loads", "Decisions whose facts were read at the record", registry=None)
        self.beside = Counter("lictor_facts_from_redis", "Decisions whose facts were found in Redis", registry=None)
        self.lease_over = Counter(
            "lictor_lease_over", "Reads that found the lease over, and asked for a poll first", registry=None
        )
        self.collectors: Sequence[Collector] = (self.loads, self.beside, self.lease_over)
