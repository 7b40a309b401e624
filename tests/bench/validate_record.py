"""`validate_record`: a validation that finds nothing in memory, so that the record answers."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.empty import ENVOY, SERVERS
from tests.bench.licensed import licensed
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort, empty_server, interleaved
from tests.bench.writes import background

GOAL: Final = Goal("validate_record", Bound.MIN, 0.08, 0.3, "calls/s")
WRITES_PER_S: Final = 200.0
WRITES: Final = Goal("validate_record_writes", Bound.MIN, 0.9, None, "writes/s")
"""What of the background was reached: with much less, the figure would be another one."""


async def run_validate_record(effort: Effort) -> list[Figure]:
    """Validations by key and empty calls with the same bytes, while licenses that nobody validates are written to."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            licensed(folder) as suite,
            empty_server(ENVOY, SERVERS[ENVOY], folder, suite.validation.load) as empty,
            background(suite.endpoint, suite.api_key, suite.others, WRITES_PER_S) as written,
        ):
            loaded = await interleaved([empty, suite.validation], effort, latencies=True)
    values, baselines = ([sample.run for sample in loaded[name]] for name in (suite.validation.name, ENVOY))
    figures = [Figure(GOAL, [run.rate for run in values], [run.rate for run in baselines])]
    for share, what in ((0.5, "validate_record_p50"), (0.99, "validate_record_p99")):
        told = information(what, Bound.MAX, "ms")
        figures.append(Figure(told, *([run.percentile_ms(share) for run in runs] for runs in (values, baselines))))
    figures.append(Figure(WRITES, [written.rate], [WRITES_PER_S]))
    return figures
