"""`make bench`: measures, prints a table, writes build/bench.jsonl. Status 0 when every figure keeps to what it must."""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from tests.bench import processes
from tests.bench.empty import GOAL as EMPTY
from tests.bench.empty import run_empty
from tests.bench.load import NotRunError, program
from tests.bench.report import Figure, Goal, NotRun, Result, exit_status, table, write
from tests.bench.subjects import Effort
from tests.bench.validate_record import GOAL as VALIDATE_RECORD
from tests.bench.validate_record import run_validate_record

OUT: Final = Path("build") / "bench.jsonl"
ENTRIES: Final[dict[str, tuple[Goal, Callable[[Effort], Awaitable[list[Figure]]]]]] = {
    goal.name: (goal, run) for goal, run in ((EMPTY, run_empty), (VALIDATE_RECORD, run_validate_record))
}
"""What can be measured, with the figure that each is about."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {','.join(ENTRIES)}")
    parser.add_argument("--rounds", type=_positive, default=5, help="of each measurement; 5 at least to be quoted")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a round is, about")
    parser.add_argument("--calls", type=_positive, help="how many calls a round is, instead")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.only.split(",") if name.strip()] or list(ENTRIES)
    if unknown := [name for name in names if name not in ENTRIES]:
        parser.error(f"no such entry: {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
    results = asyncio.run(_measure(names, Effort(options.rounds, options.seconds, options.calls)))
    write(results, options.out)
    print(table(results))
    print(f"written to {options.out}")
    return exit_status(results)


async def _measure(names: Sequence[str], effort: Effort) -> list[Result]:
    results: list[Result] = []
    for name in names:
        goal, run = ENTRIES[name]
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            program()
            if not processes.available():
                raise NotRunError("processor time is read from /proc, which this system has not")
            results += await run(effort)
        except NotRunError as error:
            results.append(NotRun(goal, str(error)))
        except Exception as error:  # noqa: BLE001 - whatever stops one entry leaves the others their turn
            traceback.print_exc()
            results.append(NotRun(goal, f"{type(error).__name__}, see above"))
    return results


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    raise SystemExit(main())
