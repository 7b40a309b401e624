"""Events: written in the transaction of the change, numbered without gaps per subject, with a pointer for the fan-out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from shared.db import statements
from shared.db.pool import Transaction
from shared.events.registry import EVENTS
from shared.ids import Prefix, new_id
from shared.tenancy import Tenant

SOURCE_API: Final = "api"
SOURCE_WORKER: Final = "worker"

_NUMBER: Final = (
    "INSERT INTO record.subject (account_id, mode, subject, seq) VALUES ($1, $2, $3, 1) "
    "ON CONFLICT (account_id, mode, subject) DO UPDATE SET seq = subject.seq + 1 RETURNING seq"
)
_STORE: Final = (
    "INSERT INTO record.event (account_id, mode, event_id, type, subject, subject_seq, schema_version, actor, source, "
    "reason, data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
)
_POINT: Final = "INSERT INTO record.outbox (account_id, mode, event_id) VALUES ($1, $2, $3)"
_TELL: Final = f"""
    WITH numbered AS (
        INSERT INTO record.subject (account_id, mode, subject, seq) VALUES ($1, $2, $5, 1)
        ON CONFLICT (account_id, mode, subject) DO UPDATE SET seq = subject.seq + 1 RETURNING seq),
    pointed AS ({_POINT}),
    told AS (
        INSERT INTO record.event (account_id, mode, event_id, type, subject, subject_seq, schema_version, actor, source, reason,
                                  data)
        SELECT $1, $2, $3, $4, $5, n.seq, $6, $7, $8, $9, $10 FROM numbered AS n)
    SELECT seq FROM numbered
"""  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to `subject` (an id). `data` is the subject as it is now; `reason` is the caller's free text."""

    type: str
    subject: str
    data: Mapping[str, Any]
    actor: str
    reason: str = ""
    source: str = SOURCE_API


_EVENT: Final = (
    "event_id", "type", "subject", "subject_seq", "occurred_at", "schema_version", "actor", "source", "reason", "data",
)  # fmt: skip
_OUTBOX: Final = ("event_id", "created_at")
NUMBER_MANY: Final = (
    "INSERT INTO record.subject (account_id, mode, subject, seq) "
    "SELECT $1, $2, s.subject, s.events FROM unnest($3::text[], $4::bigint[]) AS s(subject, events) "
    "ON CONFLICT (account_id, mode, subject) DO UPDATE SET seq = subject.seq + excluded.seq RETURNING subject, seq"
)
INSERT_EVENTS: Final = statements.insert_many("record.event", _EVENT)
INSERT_OUTBOX: Final = statements.insert_many("record.outbox", _OUTBOX)


async def emit(tx: Transaction, event: Event) -> int:
    """Stores the event, in one round trip; returns its number within the subject, from 1."""
    version = _version_of(event)
    return await tx.conn.fetchval(
        _TELL, tx.tenant.account_id, tx.tenant.mode.value, new_id(Prefix.EVENT), event.type, event.subject, version,
        event.actor, event.source, event.reason, dict(event.data),
    )  # fmt: skip


async def emit_all(conn: asyncpg.Connection, told: Sequence[tuple[Tenant, Event]]) -> list[int]:
    """Stores events of any tenants that the connection's role may write in, in three round trips; returns their numbers.

    Whoever tells of several subjects at once holds what they stand for already: two that number the same subjects in
    another order would wait for each other.
    """
    versions = [_version_of(event) for _, event in told]
    places = [(tenant.account_id, tenant.mode.value) for tenant, _ in told]
    events = [event for _, event in told]
    numbered = await conn.fetchmany(
        _NUMBER, [(*place, event.subject) for place, event in zip(places, events, strict=True)]
    )
    numbers: list[int] = [row["seq"] for row in numbered]
    ids = [new_id(Prefix.EVENT) for _ in told]
    rows = [
        (
            *place, event_id, event.type, event.subject, number, version, event.actor, event.source, event.reason,
            dict(event.data),
        )
        for place, event_id, event, number, version in zip(places, ids, events, numbers, versions, strict=True)
    ]  # fmt: skip
    await conn.executemany(_STORE, rows)
    await conn.executemany(_POINT, [(*place, event_id) for place, event_id in zip(places, ids, strict=True)])
    return numbers


async def emit_many(tx: Transaction, events: Sequence[Event]) -> None:
    """The same for many events of the transaction's tenant, in three statements whatever their number; those of one subject are
    numbered in their order."""
    versions = [_version_of(event) for event in events]
    if not events:
        return
    tenant = (tx.tenant.account_id, tx.tenant.mode.value)
    # In one order everywhere, so that two of these never wait for each other.
    counts = sorted(Counter(event.subject for event in events).items())
    last = await tx.conn.fetch(NUMBER_MANY, *tenant, [name for name, _ in counts], [number for _, number in counts])
    at = await tx.conn.fetchval("SELECT clock_timestamp()")
    next_of = {row["subject"]: row["seq"] + 1 for row in last}
    for subject, number in counts:
        next_of[subject] -= number

    def written() -> tuple[str, str]:
        ids = [new_id(Prefix.EVENT) for _ in events]
        stored: list[Sequence[object]] = []
        for event_id, event, version in zip(ids, events, versions, strict=True):
            seq = next_of[event.subject]
            next_of[event.subject] += 1
            stored.append(
                (event_id, event.type, event.subject, seq, at, version, event.actor, event.source, event.reason,
                 dict(event.data))
            )  # fmt: skip
        return statements.rows(_EVENT, stored), statements.rows(_OUTBOX, [(event_id, at) for event_id in ids])

    rows_of_events, rows_of_outbox = await asyncio.to_thread(written)
    await tx.conn.execute(INSERT_EVENTS, *tenant, rows_of_events)
    await tx.conn.execute(INSERT_OUTBOX, *tenant, rows_of_outbox)


def _version_of(event: Event) -> int:
    """The version of its payload. ValueError for one that the registry does not have."""
    known = EVENTS.get(event.type)
    if known is None:
        raise ValueError(f"{event.type} is not in the registry of events")
    return known.payload.version
