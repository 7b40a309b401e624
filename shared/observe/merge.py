"""The metrics of several processes as one exposition, each sample labelled with its process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

PROCESS = "process"
"""The label."""


class _Merged(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def merged(texts: Mapping[str, str]) -> tuple[bytes, str]:
    """The expositions of several processes, by the processes' names, as one, and its content type.

    A sample that names its process already keeps that name. Takes milliseconds: not for an event loop.
    """
    families: dict[str, Metric] = {}
    for process, text in texts.items():
        for family in text_string_to_metric_families(text):
            made = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                made.samples.append(sample._replace(labels={PROCESS: process, **sample.labels}))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(families.values()))
    return generate_latest(registry), CONTENT_TYPE_LATEST
