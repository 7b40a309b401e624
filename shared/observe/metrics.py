"""Prometheus metrics of a serving process. One instance, with a registry of its own, per process."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

UNKNOWN: Final = "unknown"
"""The labels of calls to methods that do not exist: callers choose those names, so they never become labels."""

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class CallRecorder:
    """The metrics of one method, its labels bound once."""

    __slots__ = ("_calls", "_method", "_ok", "_outlived", "_seconds", "_service")

    def __init__(self, calls: Counter, seconds: Histogram, outlived: Counter, service: str, method: str) -> None:
        self._calls = calls
        self._service = service
        self._method = method
        self._ok = calls.labels(service, method, "OK", "")
        self._seconds = seconds.labels(service, method)
        self._outlived = outlived.labels(service, method)

    def ok(self, seconds: float) -> None:
        """Counts a call that was answered."""
        self._ok.inc()
        self._seconds.observe(seconds)

    def failed(self, code: str, reason: str, seconds: float) -> None:
        """Counts a call that ended in an error: the gRPC code's name, and our reason or the empty string."""
        self._calls.labels(self._service, self._method, code, reason).inc()
        self._seconds.observe(seconds)

    def refused(self, code: str, reason: str) -> None:
        """Counts a call that never began; refusals would only blur the histogram of times."""
        self._calls.labels(self._service, self._method, code, reason).inc()

    def outlived(self) -> None:
        """Counts a write that went on after its caller had given up; its own end is counted when it ends."""
        self._outlived.inc()


class Metrics:
    """Every metric of the process, and their exposition."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._calls = Counter(
            "lictor_calls", "Calls by how they ended.", ["service", "method", "code", "reason"], registry=self.registry
        )
        self._seconds = Histogram(
            "lictor_call_seconds", "Time from admission to answer.", ["service", "method"],
            buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._outlived = Counter(
            "lictor_writes_outlived",
            "Writes that went on after their caller gave up.",
            ["service", "method"],
            registry=self.registry,
        )
        self._in_flight = Gauge("lictor_in_flight", "Calls admitted and not yet answered.", registry=self.registry)
        self._process = Info("lictor_process", "What this process is.", registry=self.registry)
        self._started = Gauge("lictor_process_started_seconds", "When it started, Unix time.", registry=self.registry)

    def recorder(self, service: str, method: str) -> CallRecorder:
        """The metrics of one method. Names must come from descriptors, never from a caller."""
        return CallRecorder(self._calls, self._seconds, self._outlived, service, method)

    def watch_in_flight(self, count: Callable[[], int]) -> None:
        """Reads `lictor_in_flight` from `count` at each scrape."""
        self._in_flight.set_function(count)

    def describe_process(self, started_at: float, **labels: str) -> None:
        """Sets `lictor_process_info` and the start time (Unix seconds)."""
        self._process.info({"python": platform.python_version(), **labels})
        self._started.set(started_at)

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
