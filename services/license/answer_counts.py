"""Validations by where their facts came from: plain numbers, since every answer pays for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from shared.freshness.reader import Source


class AnswerCounts(Collector):
    """The answers of one process. They belong to the event loop."""

    def __init__(self) -> None:
        self.recorded = self.leased = self.in_grace = 0
        self.again = 0
        """Of those that are LEASED: how many were not made anew."""

    def counted(self, source: Source) -> None:
        """Counts an answer."""
        match source:
            case Source.LEASED:
                self.leased += 1
            case Source.RECORD:
                self.recorded += 1
            case Source.GRACE:
                self.in_grace += 1
            case _ as never:
                assert_never(never)

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "lictor_validations", "Validations answered, by the freshness of their facts.", labels=["freshness"]
        )
        for source, count in (
            (Source.RECORD, self.recorded), (Source.LEASED, self.leased), (Source.GRACE, self.in_grace),
        ):  # fmt: skip
            answers.add_metric([source.name], count)
        yield answers
        yield CounterMetricFamily(
            "lictor_validations_again", "Validations answered with what was answered before.", value=self.again
        )
