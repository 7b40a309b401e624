"""`empty`: what is left of a call's cost when it does nothing, on our transport and on a bare `grpc.aio`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.load import Load, framed
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort, Subject, empty_server, interleaved, one_at_a_time, percentiles_ms, rates

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
GOALS: Final = (GOAL,)


async def run_empty(effort: Effort) -> list[Figure]:
    """All four servers side by side, one loaded at a time."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        body = folder / "empty"
        body.write_bytes(framed(b""))
        async with empty_servers(folder, Load("", [body], AUTHORIZATION), *SERVERS) as subjects:
            loaded = await interleaved(subjects, effort)
            alone = await one_at_a_time([s for s in subjects if s.name in (GRPCIO, ENVOY)], effort)
    figures = [Figure(GOAL, rates(loaded[ENVOY]), rates(loaded[GRPCIO]))]
    for other in SERVERS:
        if other not in (GRPCIO, ENVOY):
            told = information(other, Bound.MIN, "calls/s")
            figures.append(Figure(told, rates(loaded[other]), rates(loaded[GRPCIO])))
    for server in SERVERS:
        if server != GRPCIO:
            told = information("empty_cpu" if server == ENVOY else f"{server}_cpu", Bound.MAX, "us of CPU a call")
            figures.append(Figure(told, [s.cpu_us for s in loaded[server]], [s.cpu_us for s in loaded[GRPCIO]]))
    p50 = information("empty_p50", Bound.MAX, "ms")
    figures.append(Figure(p50, percentiles_ms(alone[ENVOY], 0.5), percentiles_ms(alone[GRPCIO], 0.5)))
    return figures


@asynccontextmanager
async def empty_servers(folder: Path, load: Load, *names: str) -> AsyncGenerator[list[Subject]]:
    """Some of the empty servers, each in a process of its own, and each sent `load` wherever that would go to."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(empty_server(name, SERVERS[name], folder, load)) for name in names]
