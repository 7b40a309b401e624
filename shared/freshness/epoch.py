"""The epoch: a random id that vanishes when Postgres crashes or is promoted, and so tells old transaction ids from new."""

from __future__ import annotations

from shared.db.pool import Database


async def ensure_epoch(facts: Database) -> None:
    """Makes the epoch's row where a crash has emptied its unlogged table; only lictor_facts may."""
    await facts.load("INSERT INTO record.epoch DEFAULT VALUES ON CONFLICT (only_row) DO NOTHING")
