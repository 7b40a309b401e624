"""What every load says of the state that it read."""

from __future__ import annotations

from typing import Final

import asyncpg

from shared.freshness.epoch import EPOCH
from shared.freshness.snapshot import Snapshot, Stamp

STAMP: Final = (
    f"(SELECT system_identifier FROM pg_control_system()) AS system_id, {EPOCH} AS epoch, "  # noqa: S608 - constants
    "pg_current_snapshot()::text AS snapshot"
)
"""The columns."""


def stamp_of(row: asyncpg.Record) -> Stamp | None:
    """None right after a crash of Postgres, before somebody has begun a new epoch."""
    if row["epoch"] is None:
        return None
    return Stamp(row["system_id"], row["epoch"], Snapshot.parse(row["snapshot"]))
