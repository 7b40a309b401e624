"""`empty`: what is left of a call's cost when it does nothing, on our transport and on a bare `grpc.aio`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.load import Load, framed
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort, Sample, Subject, empty_server, interleaved

AUTHORIZATION: Final = "Bearer nothing-that-anybody-could-use"
GRPCIO: Final = "empty_grpcio"
ENVOY: Final = "empty_envoy"
SERVERS: Final = {
    GRPCIO: ("tests.bench.empty_grpcio",),
    ENVOY: ("tests.bench.empty_service", "envoy"),
    "empty_envoy_bare": ("tests.bench.empty_bare",),
    "empty_grpcio_chain": ("tests.bench.empty_service", "grpcio"),
}
GOAL: Final = Goal("empty", Bound.MIN, 3.0, 4.0, "calls/s")
ALONE_SECONDS: Final = 0.5
"""Of the time of a round, for calls one at a time: their latency settles sooner than a rate."""


async def run_empty(effort: Effort) -> list[Figure]:
    """All four servers side by side, one loaded at a time."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        body = folder / "empty"
        body.write_bytes(framed(b""))
        async with _servers(folder, Load("", [body], AUTHORIZATION)) as subjects:
            loaded = await interleaved(subjects, effort)
            pair = [s for s in subjects if s.name in (GRPCIO, ENVOY)]
            one_at_a_time = [replace(s, load=replace(s.load, connections=1, streams=1)) for s in pair]
            alone = await interleaved(
                one_at_a_time, replace(effort, seconds=effort.seconds * ALONE_SECONDS), latencies=True
            )
    figures = [Figure(GOAL, _rates(loaded[ENVOY]), _rates(loaded[GRPCIO]))]
    for other in SERVERS:
        if other not in (GRPCIO, ENVOY):
            told = information(other, Bound.MIN, "calls/s")
            figures.append(Figure(told, _rates(loaded[other]), _rates(loaded[GRPCIO])))
    for server in SERVERS:
        if server != GRPCIO:
            told = information("empty_cpu" if server == ENVOY else f"{server}_cpu", Bound.MAX, "us of CPU a call")
            figures.append(Figure(told, [s.cpu_us for s in loaded[server]], [s.cpu_us for s in loaded[GRPCIO]]))
    p50 = information("empty_p50", Bound.MAX, "ms")
    figures.append(Figure(p50, [s.run.percentile_ms(0.5) for s in alone[ENVOY]],
                          [s.run.percentile_ms(0.5) for s in alone[GRPCIO]]))  # fmt: skip
    return figures


def _rates(samples: Sequence[Sample]) -> list[float]:
    return [sample.run.rate for sample in samples]


@asynccontextmanager
async def _servers(folder: Path, load: Load) -> AsyncGenerator[list[Subject]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(empty_server(name, arguments, folder, load))
            for name, arguments in SERVERS.items()
        ]
