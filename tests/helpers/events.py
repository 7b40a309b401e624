"""Events as they are told, from the rows of the record; and what is wrong with any of them."""

from __future__ import annotations

from typing import Any

import asyncpg

from shared.events.registry import faults_of


def envelope(row: asyncpg.Record) -> dict[str, Any]:
    """A row of record.event as it is told."""
    return {
        "id": row["event_id"],
        "occurred_at": row["occurred_at"].isoformat(),
        **{
            name: row[name]
            for name in (
                "type", "schema_version", "account_id", "mode", "subject", "subject_seq", "actor", "source", "reason", "data",
            )
        },
    }  # fmt: skip


async def bad_events(conn: asyncpg.Connection) -> list[str]:
    """What is wrong with any event of the database, by its type. JSON is decoded by the connection."""
    found: set[str] = set()
    for row in await conn.fetch("SELECT * FROM record.event"):
        found |= {f"{row['type']}: {fault}" for fault in faults_of(envelope(row))}
    return sorted(found)
