"""`validate_l2` and `validate_record`: validations that find nothing in memory; and `validate_anew`, which find the facts there,
but no answer: what the others cost beside their reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from shared.embedded.places import temporary_state
from shared.embedded.valkey import EmbeddedValkey
from tests.bench.empty import ENVOY, empty_servers
from tests.bench.licensed import licensed
from tests.bench.load import NotRunError
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort, interleaved, measure, percentiles_ms, rates
from tests.bench.writes import reached, writes_of

L2: Final = Goal("validate_l2", Bound.MIN, 0.25, 0.5, "calls/s")
L2_GOALS: Final = (L2, writes_of("validate_l2"))
RECORD: Final = Goal("validate_record", Bound.MIN, 0.15, 0.3, "calls/s")
_AGAIN: Final = "lictor_validations_again_total"
ROOM_BYTES: Final = 256 * 1024
"""Room for about a hundred licenses: more than there are calls in flight, so that the credential stays in memory."""
L2_ASKED: Final = 4000
L2_WARM_UP_CALLS: Final = 12_000
"""In which nearly all of them are asked for."""
RECORD_GOALS: Final = (RECORD, writes_of("validate_record"))
ANEW: Final = information("validate_anew", Bound.MIN, "calls/s")
ANEW_GOALS: Final = (writes_of("validate_anew"),)


async def run_validate_l2(effort: Effort) -> list[Figure]:
    """Validations of more licenses than the process has room for, all of them in Valkey."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with valkey() as url, licensed(folder, redis_url=url, facts_memory_bytes=str(ROOM_BYTES)) as suite:
            load = suite.spread(suite.issued[:L2_ASKED])
            subject = suite.subject(L2.name, load, warm_up_calls=L2_WARM_UP_CALLS)
            async with empty_servers(folder, load, ENVOY) as [empty], suite.writes(L2_ASKED) as written:
                await measure(subject, L2_WARM_UP_CALLS)
                async with suite.from_valkey():
                    loaded = await interleaved([empty, subject], effort)
    return [Figure(L2, rates(loaded[subject.name]), rates(loaded[ENVOY])), reached(L2.name, written)]


async def run_validate_anew(effort: Effort) -> list[Figure]:
    """Validations of as many licenses, the facts of all of them in memory, each answer made anew."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with licensed(folder) as suite:
            load = suite.spread(suite.issued[:L2_ASKED], anew=True)
            subject = suite.subject(ANEW.name, load)
            async with empty_servers(folder, load, ENVOY) as [empty], suite.writes(L2_ASKED) as written:
                await suite.hold_facts(suite.issued[:L2_ASKED])
                before = await suite.metric(_AGAIN)
                async with suite.from_memory():
                    loaded = await interleaved([empty, subject], effort)
                again = await suite.metric(_AGAIN) - before
    if again:
        raise NotRunError(f"{again:.0f} validations were answered with what was answered before")
    return [Figure(ANEW, rates(loaded[subject.name]), rates(loaded[ENVOY])), reached(ANEW.name, written)]


async def run_validate_record(effort: Effort) -> list[Figure]:
    """Validations and empty calls with the same bytes, while licenses that nobody validates are written to."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with licensed(folder) as suite:
            load = suite.validations(fresh=True)
            subject = suite.subject(RECORD.name, load)
            async with empty_servers(folder, load, ENVOY) as [empty], suite.writes() as written:
                loaded = await interleaved([empty, subject], effort, latencies=True)
    pair = (loaded[subject.name], loaded[ENVOY])
    figures = [Figure(RECORD, *map(rates, pair))]
    for share, what in ((0.5, "p50"), (0.99, "p99")):
        told = information(f"{RECORD.name}_{what}", Bound.MAX, "ms")
        figures.append(Figure(told, *(percentiles_ms(samples, share) for samples in pair)))
    return [*figures, reached(RECORD.name, written)]


@asynccontextmanager
async def valkey() -> AsyncGenerator[str]:
    """A Valkey of its own; its address."""
    with temporary_state() as state:
        server = EmbeddedValkey(state)
        await asyncio.to_thread(server.start)
        try:
            yield server.dsn()
        finally:
            await asyncio.to_thread(server.stop)
