"""Metrics of several processes as one exposition."""

from __future__ import annotations

from collections import Counter

from shared.observe.merge import merged
from shared.observe.metrics import Metrics
from tests.helpers.serving import samples


def exposition(calls: int) -> str:
    metrics = Metrics()
    metrics.describe_process(1.5, transport="envoy")
    recorder = metrics.recorder("a.B", "Read")
    for _ in range(calls):
        recorder.ok(0.003)
    recorder.failed("INTERNAL", 'quotes " and \\ and \n', 0.5)
    return metrics.exposition()[0].decode()


def test_each_process_keeps_its_samples() -> None:
    text = merged({"0": exposition(2), "1": exposition(5)})[0].decode()
    ok = {dict(labels)["process"]: value for labels, value in samples(text, "lictor_calls_total").items()
          if ("code", "OK") in labels}  # fmt: skip
    assert ok == {"0": 2.0, "1": 5.0}
    buckets = samples(text, "lictor_call_seconds_bucket")
    key = (("le", "0.005"), ("method", "Read"), ("process", "1"), ("service", "a.B"))
    assert buckets[key] == 5.0
    assert sum(samples(text, "lictor_call_seconds_count").values()) == 9.0
    assert len(samples(text, "process_resident_memory_bytes")) == 2


def test_each_family_is_described_once_and_stands_together() -> None:
    text = merged({"0": exposition(1), "1": exposition(1)})[0].decode()
    described = Counter(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(described.values()) == {1}
    assert "# TYPE lictor_call_seconds histogram" in text
    assert "# TYPE lictor_calls_total counter" in text
    one = exposition(1)
    assert {line for line in one.splitlines() if line[0] == "#"} == {
        line for line in text.splitlines() if line[0] == "#"
    }
    assert len(samples(text, "lictor_call_seconds_bucket")) == 2 * len(samples(one, "lictor_call_seconds_bucket"))


def test_a_sample_that_names_its_process_keeps_the_name() -> None:
    own = '# HELP r_total R.\n# TYPE r_total counter\nr_total{process="0"} 3.0\n'
    assert samples(merged({"supervisor": own})[0].decode(), "r_total") == {(("process", "0"),): 3.0}
