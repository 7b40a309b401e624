"""Every SQL statement on those who wait for seats. Places are given and taken by whoever holds the seats of the license."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.db import statements
from shared.db.pool import Transaction
from shared.ids import Prefix, new_id

PATIENCE: Final = timedelta(seconds=15)
"""How long a place is kept for who does not ask again."""

_WAIT: Final = ("ticket_id", "license_id", "identity_hash", "user_id", "lapses_at")
PLACE_OF: Final = statements.select(
    "machine.seat_wait", ("ticket_id", "place"), "license_id = $3", "identity_hash = ANY ($4)", "lapses_at > $5"
)
AHEAD: Final = statements.select(
    "machine.seat_wait", ("count(*)",), "license_id = $3", "lapses_at > $4", "($5::bigint IS NULL OR place < $5)",
    "($6::text IS NULL OR user_id = $6)",
)  # fmt: skip
DROP_LAPSED: Final = (
    "DELETE FROM machine.seat_wait WHERE account_id = $1 AND mode = $2 AND license_id = $3 AND lapses_at <= $4"
)
DROP: Final = (
    "DELETE FROM machine.seat_wait WHERE account_id = $1 AND mode = $2 AND license_id = $3 AND identity_hash = ANY ($4)"
)
INSERT: Final = statements.insert("machine.seat_wait", _WAIT)
KEEP_BY: Final = (
    "UPDATE machine.seat_wait SET lapses_at = $5 "
    "WHERE account_id = $1 AND mode = $2 AND license_id = $3 AND identity_hash = ANY ($4)"
)
KEEP: Final = statements.update("machine.seat_wait", "ticket_id", ("lapses_at",))


@dataclass(frozen=True, slots=True)
class Place:
    """A place among those who wait. `ahead` are those before it."""

    ticket_id: str
    ahead: int
    lapses_at: datetime
    is_new: bool


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


async def ahead_of(tx: Transaction, license_id: str, hashes: Sequence[bytes], user_id: str | None) -> int:
    """How many wait before who is known by one of the hashes, or in all where it does not wait; of a user alone where one is
    named."""
    row = await tx.conn.fetchrow(PLACE_OF, *_in_tenant(tx, license_id, list(hashes), tx.now))
    place = None if row is None else row["place"]
    return await tx.conn.fetchval(AHEAD, *_in_tenant(tx, license_id, tx.now, place, user_id))


async def queue(
    tx: Transaction, license_id: str, hashes: Sequence[bytes], user_id: str | None, within: str | None
) -> Place:
    """The place of who is known by one of the hashes, kept for a while longer; the last one where it had none. `within` narrows
    those ahead to a user's."""
    await tx.conn.execute(DROP_LAPSED, *_in_tenant(tx, license_id, tx.now))
    row = await tx.conn.fetchrow(PLACE_OF, *_in_tenant(tx, license_id, list(hashes), tx.now))
    lapses_at = tx.now + PATIENCE
    if row is None:
        ticket_id = new_id(Prefix.SEAT_WAIT)
        ahead = await ahead_of(tx, license_id, hashes, within)
        await tx.conn.execute(INSERT, *_in_tenant(tx, ticket_id, license_id, hashes[0], user_id, lapses_at))
        return Place(ticket_id, ahead, lapses_at, True)
    await tx.conn.execute(KEEP, *_in_tenant(tx, row["ticket_id"], lapses_at))
    return Place(row["ticket_id"], await ahead_of(tx, license_id, hashes, within), lapses_at, False)


async def keep(tx: Transaction, license_id: str, hashes: Sequence[bytes]) -> None:
    """Keeps a place for a while longer, where there still is one."""
    await tx.conn.execute(KEEP_BY, *_in_tenant(tx, license_id, list(hashes), tx.now + PATIENCE))


async def leave(tx: Transaction, license_id: str, hashes: Sequence[bytes]) -> None:
    """Who has a seat does not wait for one."""
    await tx.conn.execute(DROP, *_in_tenant(tx, license_id, list(hashes)))
