"""`growth_hot` and `growth_record`: what a hundred times as many licenses, in a thousand times as large a record, cost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.empty import ENVOY, empty_servers
from tests.bench.licensed import Licensed, licensed
from tests.bench.report import Bound, Figure, Goal, information
from tests.bench.subjects import Effort, Sample, interleaved, rates
from tests.bench.writes import WRITES_PER_S, reached, writes_of

HOT: Final = Goal("growth_hot", Bound.MIN, 0.85, 1.0, "calls/s")
RECORD: Final = Goal("growth_record", Bound.MIN, 0.8, 1.0, "calls/s")
GOALS: Final = (HOT, RECORD, writes_of("growth"))


@dataclass(frozen=True, slots=True)
class Size:
    """A record, and the licenses of it that are asked for; the others are written to."""

    name: str
    licenses: int
    asked: int


SMALL: Final = Size("small", 2_000, 1_000)
LARGE: Final = Size("large", 1_000_000, 100_000)


async def run_growth(effort: Effort) -> list[Figure]:
    """The same calls to two servers, each with a record of its own, side by side."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with _grown(folder, SMALL) as small, _grown(folder, LARGE) as large:
            suites = {SMALL: small, LARGE: large}
            async with (
                small.writes(SMALL.asked, WRITES_PER_S / 2) as few,
                large.writes(LARGE.asked, WRITES_PER_S / 2) as many,
            ):
                async with small.from_memory(), large.from_memory():
                    hot = await _asked(suites, effort, fresh=False)
                record = await _asked(suites, effort, fresh=True)
            generator = await _generator(small, folder, effort)
    return [_figure(HOT, hot), _figure(RECORD, record), generator, reached("growth", few, many)]


@asynccontextmanager
async def _grown(folder: Path, size: Size) -> AsyncGenerator[Licensed]:
    own = folder / size.name
    own.mkdir()
    async with licensed(own, size.licenses) as suite:
        await suite.hold(suite.issued[: size.asked])
        yield suite


async def _asked(suites: Mapping[Size, Licensed], effort: Effort, *, fresh: bool) -> dict[str, list[Sample]]:
    return await interleaved(
        [
            suite.subject(size.name, suite.spread(suite.issued[: size.asked], fresh=fresh))
            for size, suite in suites.items()
        ],
        effort,
    )


def _figure(goal: Goal, found: Mapping[str, Sequence[Sample]]) -> Figure:
    return Figure(goal, rates(found[LARGE.name]), rates(found[SMALL.name]))


async def _generator(suite: Licensed, folder: Path, effort: Effort) -> Figure:
    """How fast this generator is beside h2load, on a server that has little else to do: no figure above may come near."""
    load = suite.validations()
    async with empty_servers(folder, load, ENVOY) as [empty]:
        one_file = replace(suite.spread(suite.issued[: SMALL.asked]), url=empty.load.url)
        ours = replace(empty, name="generator", load=one_file)
        found = await interleaved([empty, ours], effort)
    told = information("growth_generator", Bound.MIN, "calls/s, h2load's")
    return Figure(told, rates(found[ours.name]), rates(found[ENVOY]))
