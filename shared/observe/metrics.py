"""Prometheus metrics of a serving process. One instance, with a registry of its own, per process."""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, GCCollector, Info, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

UNKNOWN: Final = "unknown"
"""The labels of calls to methods that do not exist: callers choose those names, so they never become labels."""

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class CallRecorder:
    """The metrics of one method: plain numbers, since every call pays for them. They belong to the event loop."""

    __slots__ = ("buckets", "ends", "ok_count", "outlived_count", "total_s")

    def __init__(self) -> None:
        self.ok_count = 0
        self.ends: dict[tuple[str, str], int] = {}
        """Calls that were not answered, by code and reason."""
        self.buckets = [0] * (len(_BUCKETS) + 1)
        """Calls by the first bound that their time does not exceed."""
        self.total_s = 0.0
        self.outlived_count = 0

    def ok(self, seconds: float) -> None:
        """Counts a call that was answered."""
        self.ok_count += 1
        self.buckets[bisect_left(_BUCKETS, seconds)] += 1
        self.total_s += seconds

    def failed(self, code: str, reason: str, seconds: float) -> None:
        """Counts a call that ended in an error: the gRPC code's name, and our reason or the empty string."""
        self.refused(code, reason)
        self.buckets[bisect_left(_BUCKETS, seconds)] += 1
        self.total_s += seconds

    def refused(self, code: str, reason: str) -> None:
        """Counts a call that never began; refusals would only blur the histogram of times."""
        self.ends[code, reason] = self.ends.get((code, reason), 0) + 1

    def outlived(self) -> None:
        """Counts a write that went on after its caller had given up; its own end is counted when it ends."""
        self.outlived_count += 1


class _Calls(Collector):
    """Shows what the recorders counted when somebody scrapes."""

    def __init__(self) -> None:
        self.recorders: dict[tuple[str, str], CallRecorder] = {}

    def collect(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "lictor_calls", "Calls by how they ended.", labels=["service", "method", "code", "reason"]
        )
        outlived = CounterMetricFamily(
            "lictor_writes_outlived", "Writes that went on after their caller gave up.", labels=["service", "method"]
        )
        seconds = HistogramMetricFamily(
            "lictor_call_seconds", "Time from admission to answer.", labels=["service", "method"]
        )
        for names, recorder in self.recorders.items():
            for ended, count in {("OK", ""): recorder.ok_count, **recorder.ends}.items():
                calls.add_metric([*names, *ended], count)
            outlived.add_metric(names, recorder.outlived_count)
            bounds = [*map(str, _BUCKETS), "+Inf"]
            seconds.add_metric(names, list(zip(bounds, accumulate(recorder.buckets), strict=True)), recorder.total_s)
        yield from (calls, outlived, seconds)


class Metrics:
    """Every metric of the process, and their exposition."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._calls = _Calls()
        self.registry.register(self._calls)
        self._in_flight = Gauge("lictor_in_flight", "Calls admitted and not yet answered.", registry=self.registry)
        self._process = Info("lictor_process", "What this process is.", registry=self.registry)
        self._started = Gauge("lictor_process_started_seconds", "When it started, Unix time.", registry=self.registry)

    def recorder(self, service: str, method: str) -> CallRecorder:
        """The metrics of one method. Names must come from descriptors, never from a caller."""
        return self._calls.recorders.setdefault((service, method), CallRecorder())

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
