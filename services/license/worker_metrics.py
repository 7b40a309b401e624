"""What the workers of this service count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Histogram
from prometheus_client.registry import Collector

_LAG_BUCKETS_S: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)


class WorkerMetrics:
    """One instance per process, shown by its exposition."""

    def __init__(self) -> None:
        self.told = Counter(
            "lictor_boundaries", "Boundaries of licenses that were told.", labelnames=["type"], registry=None
        )
        self.lag = Histogram(
            "lictor_boundary_lag_seconds", "Time from a boundary to its event.", buckets=_LAG_BUCKETS_S, registry=None
        )
        self.failed_ticks = Counter(
            "lictor_worker_failures", "Ticks of a worker that failed.", labelnames=["worker"], registry=None
        )
        self.marks_dropped = Counter(
            "lictor_validation_marks_dropped", "Marks of validations that found no room.", registry=None
        )

    @property
    def collectors(self) -> Sequence[Collector]:
        return (self.told, self.lag, self.failed_ticks, self.marks_dropped)
