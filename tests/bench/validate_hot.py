"""`validate_hot` and `validate_batch`: validations that are answered from memory."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.empty import ENVOY, GRPCIO, empty_servers
from tests.bench.licensed import BATCH_VALIDATE, FILES, licensed
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort, interleaved, one_at_a_time, percentiles_ms, rates
from tests.bench.writes import reached, writes_of

HOT: Final = Goal("validate_hot", Bound.MIN, 3.0, 4.5, "calls/s")
HOT_ENVOY: Final = Goal("validate_hot_envoy", Bound.MIN, 0.65, 0.85, "calls/s")
HOT_P50: Final = Goal("validate_hot_p50", Bound.MAX, 1.6, 1.2, "ms")
HOT_GOALS: Final = (HOT, HOT_ENVOY, HOT_P50, writes_of("validate_hot"))
BATCH: Final = Goal("validate_batch", Bound.MIN, 12.0, 20.0, "answers/s, calls/s")
BATCH_GOALS: Final = (BATCH, writes_of("validate_batch"))
BATCH_SIZE: Final = 100
BATCH_WARM_UP_CALLS: Final = 200


async def run_validate_hot(effort: Effort) -> list[Figure]:
    """Validations by key beside empty calls with the same bytes, while other licenses are written to."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with licensed(folder) as suite:
            load = suite.validations()
            hot = suite.subject("validate_hot", load)
            async with (
                empty_servers(folder, load, GRPCIO, ENVOY) as [bare, empty],
                suite.writes() as written,
                suite.from_memory(),
            ):
                loaded = await interleaved([bare, empty, hot], effort)
                alone = await one_at_a_time([empty, hot], effort)
    value = rates(loaded[hot.name])
    cpu = ([sample.cpu_us for sample in loaded[which]] for which in (hot.name, ENVOY))
    return [
        Figure(HOT, value, rates(loaded[GRPCIO])),
        Figure(HOT_ENVOY, value, rates(loaded[ENVOY])),
        Figure(HOT_P50, percentiles_ms(alone[hot.name], 0.5), percentiles_ms(alone[ENVOY], 0.5)),
        Figure(information("validate_hot_cpu", Bound.MAX, "us of CPU a call"), *cpu),
        reached("validate_hot", written),
    ]


async def run_validate_batch(effort: Effort) -> list[Figure]:
    """Validations of 100 licenses in a call beside empty calls with the same bytes, while other licenses are written to."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with licensed(folder) as suite:
            load = suite.batches(BATCH_SIZE)
            batches = suite.subject("validate_batch", load, BATCH_VALIDATE, BATCH_WARM_UP_CALLS)
            async with (
                empty_servers(folder, load, GRPCIO) as [bare],
                suite.writes(spared=FILES * BATCH_SIZE) as written,
            ):
                loaded = await interleaved([bare, batches], effort)
    answers = [rate * BATCH_SIZE for rate in rates(loaded[batches.name])]
    return [Figure(BATCH, answers, rates(loaded[GRPCIO])), reached("validate_batch", written)]
