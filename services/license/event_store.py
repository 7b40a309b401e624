"""Every SQL statement that reads events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.db import statements
from shared.db.pool import Transaction

_EVENT: Final = (
    "event_id", "type", "schema_version", "subject", "subject_seq", "occurred_at", "actor", "source", "reason", "data",
)  # fmt: skip

IS_KNOWN: Final = statements.select("record.subject", ("seq",), "subject = $3")


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is stored, without its tenant."""

    event_id: str
    type: str
    schema_version: int
    subject: str
    subject_seq: int
    occurred_at: datetime
    actor: str
    source: str
    reason: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Events of one subject. Empty `types` mean all; `start` is in, `end` is out, None does not narrow."""

    subject: str
    types: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None


def page_statement(wanted: EventFilter) -> tuple[str, list[object]]:
    """The statement of a page in the order of the numbers: $1 account, $2 mode, $3 subject, $4 the number to go on after,
    $5 how many; and the values of the filters, from $6 on. A subject has few events next to its tenant, so that the
    filters need no index."""
    conditions: list[str] = []
    values: list[object] = []
    for condition, value in (
        ("type = ANY (${})", list(wanted.types) or None),
        ("occurred_at >= ${}", wanted.start),
        ("occurred_at < ${}", wanted.end),
    ):
        if value is not None:
            values.append(value)
            conditions.append(condition.format(5 + len(values)))
    chosen = statements.select("record.event", _EVENT, "subject = $3", "subject_seq > $4", *conditions)
    return f"{chosen} ORDER BY subject_seq LIMIT $5", values


async def page(tx: Transaction, wanted: EventFilter, after: int, limit: int) -> Sequence[StoredEvent]:
    """Events in the order of their numbers, those after `after`."""
    statement, values = page_statement(wanted)
    rows = await tx.conn.fetch(
        statement, tx.tenant.account_id, tx.tenant.mode.value, wanted.subject, after, limit, *values
    )
    return [StoredEvent(**row) for row in rows]


async def is_known(tx: Transaction, subject: str) -> bool:
    """Whether something with this id ever had an event: whatever is made has one."""
    return await tx.conn.fetchval(IS_KNOWN, tx.tenant.account_id, tx.tenant.mode.value, subject) is not None
