"""`lictor serve` with one thing in it broken, to see that the hammer finds it: `python -m tests.consistency.spoiled late`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import asyncpg

from services.cli import main
from shared.db.pool import Database

REMEMBERED_S: Final = 0.4

_load = Database.load


def late() -> None:
    """Answers of the record are used again for a while."""
    held: dict[str, tuple[float, Sequence[asyncpg.Record]]] = {}

    async def load(self: Database, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        key = repr((statement, arguments))
        since, rows = held.get(key, (0.0, ()))
        if time.monotonic() - since > REMEMBERED_S:
            since = time.monotonic()
            rows = await _load(self, statement, *arguments)
            held[key] = (since, rows)
        return rows

    Database.load = load


def in_two() -> None:
    """A load of many is two statements, a moment apart: half of what is asked for is from before."""

    async def load(self: Database, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        first = await _load(self, statement, *arguments)
        if len(first) < 2:
            return first
        then = await _load(self, statement, *arguments)
        return [*first[: len(first) // 2], *then[len(first) // 2 :]] if len(first) == len(then) else then

    Database.load = load


WAYS: Final[dict[str, Callable[[], None]]] = {"late": late, "in_two": in_two}

if __name__ == "__main__":
    WAYS[sys.argv[1]]()
    sys.argv[1:] = ["serve"]
    sys.exit(main())
