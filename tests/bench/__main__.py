"""`make bench`: measures, prints a table, writes build/bench.jsonl. Status 0 when every figure keeps to what it must."""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import activate, empty, growth, memory, processes, revoke, rss, validate_cold, validate_hot
from tests.bench.load import NotRunError, program
from tests.bench.report import Figure, Goal, NotRun, Result, exit_status, table, write
from tests.bench.subjects import Effort

OUT: Final = Path("build") / "bench.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is measured in one go, and the figures of it that are judged."""

    goals: Sequence[Goal]
    run: Callable[[Effort], Awaitable[list[Figure]]]


ENTRIES: Final = {
    "empty": Entry(empty.GOALS, empty.run_empty),
    "validate_hot": Entry(validate_hot.HOT_GOALS, validate_hot.run_validate_hot),
    "validate_batch": Entry(validate_hot.BATCH_GOALS, validate_hot.run_validate_batch),
    "validate_l2": Entry(validate_cold.L2_GOALS, validate_cold.run_validate_l2),
    "validate_anew": Entry(validate_cold.ANEW_GOALS, validate_cold.run_validate_anew),
    "validate_record": Entry(validate_cold.RECORD_GOALS, validate_cold.run_validate_record),
    "growth": Entry(growth.GOALS, growth.run_growth),
    "revoke_p99": Entry(revoke.GOALS, revoke.run_revoke),
    "memory": Entry(memory.GOALS, memory.run_memory),
    "activate": Entry(activate.GOALS, activate.run_activate),
    "rss_100k": Entry(rss.GOALS, rss.run_rss),
}
_NAMES: Final = {goal.name: name for name, entry in ENTRIES.items() for goal in entry.goals} | {n: n for n in ENTRIES}
"""Every name that a figure can be asked for by, and the entry that it comes from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {','.join(ENTRIES)}")
    parser.add_argument("--rounds", type=_positive, default=5, help="of each measurement; 5 at least to be quoted")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a round is, about")
    parser.add_argument("--calls", type=_positive, help="how many calls a round is, instead")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    asked = [name.strip() for name in options.only.split(",") if name.strip()] or list(ENTRIES)
    if unknown := [name for name in asked if name not in _NAMES]:
        parser.error(f"no such entry: {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
    names = list(dict.fromkeys(_NAMES[name] for name in asked))
    results = asyncio.run(_measure(names, Effort(options.rounds, options.seconds, options.calls)))
    write(results, options.out)
    print(table(results))
    print(f"written to {options.out}")
    return exit_status(results)


async def _measure(names: Sequence[str], effort: Effort) -> list[Result]:
    results: list[Result] = []
    for name in names:
        entry = ENTRIES[name]
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            program()
            if not processes.available():
                raise NotRunError("processor time is read from /proc, which this system has not")
            results += await entry.run(effort)
        except NotRunError as error:
            results += [NotRun(goal, str(error)) for goal in entry.goals]
        except Exception as error:  # noqa: BLE001 - whatever stops one entry leaves the others their turn
            traceback.print_exc()
            results += [NotRun(goal, f"{type(error).__name__}, see above") for goal in entry.goals]
    return results


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    raise SystemExit(main())
