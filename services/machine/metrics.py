"""What batches of heartbeats and the worker of machines count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Histogram
from prometheus_client.registry import Collector

_SIZES: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_WAITS_S: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LAGS_S: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)


class BeatMetrics:
    """One instance per process, shown by its exposition."""

    def __init__(self) -> None:
        self.size = Histogram(
            "lictor_heartbeat_batch_size",
            "Machines and processes of a batch of heartbeats.",
            buckets=_SIZES,
            registry=None,
        )
        self.waited = Histogram(
            "lictor_heartbeat_wait_seconds",
            "From a heartbeat until its batch was committed.",
            buckets=_WAITS_S,
            registry=None,
        )
        self.beats = Counter(
            "lictor_heartbeats", "Heartbeats, by whether a batch took them.", labelnames=["taken"], registry=None
        )
        self.failed = Counter("lictor_heartbeat_batch_failures", "Batches of heartbeats that failed.", registry=None)

    @property
    def collectors(self) -> Sequence[Collector]:
        return (self.size, self.waited, self.beats, self.failed)


class MachineWorkerMetrics:
    """One instance per process, shown by its exposition."""

    def __init__(self) -> None:
        self.told = Counter(
            "lictor_machine_worker_events",
            "Events that the worker of machines told.",
            labelnames=["type"],
            registry=None,
        )
        self.lag = Histogram(
            "lictor_machine_worker_lag_seconds", "From the moment that an event is about to the event.", buckets=_LAGS_S,
            registry=None,
        )  # fmt: skip
        self.looked_at = Counter(
            "lictor_machine_worker_looks", "Machines and processes that the worker looked at.", registry=None
        )
        self.failed = Counter("lictor_machine_worker_failures", "Looks of the worker that failed.", registry=None)
        self.unknown = Counter(
            "lictor_machine_worker_unknown",
            "Machines of which nobody can say what has become of them, each time that one was looked at.",
            registry=None,
        )

    @property
    def collectors(self) -> Sequence[Collector]:
        return (self.told, self.lag, self.looked_at, self.failed, self.unknown)
