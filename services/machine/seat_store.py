"""Every SQL statement on the seats of licenses, and on the leases of those that streams hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from shared.db import statements
from shared.db.pool import Transaction
from shared.facts.machines import NO_SEATS, SeatsValue

_SEAT: Final = ("machines", "users", "cores", "memory_bytes", "disk_bytes", "processes", "first_activated_at")
LOCK_SEATS: Final = statements.select("machine.seat", _SEAT, "license_id = $3") + " FOR UPDATE"
OPEN_SEATS: Final = f"""
    WITH opened AS ({statements.insert("machine.seat", ("license_id",))}
        ON CONFLICT (account_id, mode, license_id) DO NOTHING RETURNING {", ".join(_SEAT)})
    SELECT {", ".join(_SEAT)} FROM opened
     UNION ALL SELECT {", ".join(_SEAT)} FROM ({LOCK_SEATS}) AS held
"""
GET_SEATS: Final = statements.select("machine.seat", _SEAT, "license_id = $3")
NEXT_EPOCH: Final = """
    UPDATE machine.seat SET lease_epochs = lease_epochs + 1
     WHERE account_id = $1 AND mode = $2 AND license_id = $3 RETURNING lease_epochs
"""
COUNT_OF_USER: Final = statements.select(
    "machine.machine", ("count(*)",), "license_id = $3", "user_id = $4", "deactivated_at IS NULL"
)
COUNT_HELD: Final = """
    SELECT count(*) FROM machine.machine AS m
      JOIN machine.beat AS b ON b.account_id = m.account_id AND b.mode = m.mode AND b.machine_id = m.machine_id
     WHERE m.account_id = $1 AND m.mode = $2 AND m.license_id = $3 AND m.deactivated_at IS NULL
       AND (b.lease_expires_at IS NULL OR b.lease_expires_at > $4) AND ($5::text IS NULL OR m.user_id = $5)
"""
SET_HOLDER: Final = statements.update("machine.beat", "machine_id", ("lease_holder",))
HOLD_BEATS: Final = (
    statements.select("machine.beat", ("machine_id",), "machine_id = ANY ($3)") + " ORDER BY machine_id FOR UPDATE"
)
RENEW_HELD: Final = """
    UPDATE machine.beat AS b SET lease_expires_at = least($3 + h.lasts, h.ends_at), last_heartbeat_at = $3
      FROM unnest($4::text[], $5::bigint[], $6::text[], $7::interval[], $8::timestamptz[])
           AS h (machine_id, epoch, holder, lasts, ends_at), machine.machine AS m
     WHERE b.account_id = $1 AND b.mode = $2 AND b.machine_id = h.machine_id AND b.lease_holder = h.holder
       AND b.lease_expires_at > $3 AND m.account_id = $1 AND m.mode = $2 AND m.machine_id = h.machine_id
       AND m.lease_epoch = h.epoch AND m.deactivated_at IS NULL
    RETURNING b.machine_id, b.lease_expires_at
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that a stream holds. It lasts `lasts` from each renewal, and not past `ends_at`."""

    machine_id: str
    epoch: int
    holder: str
    lasts: timedelta
    ends_at: datetime | None


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


async def lock_seats(tx: Transaction, license_id: str) -> SeatsValue:
    """The seats of a license, which nobody else can take or free until this transaction ends."""
    row = await tx.conn.fetchrow(OPEN_SEATS, *_in_tenant(tx, license_id))
    if row is None:  # somebody has opened them just now, and this statement does not see it
        row = await tx.conn.fetchrow(LOCK_SEATS, *_in_tenant(tx, license_id))
    assert row is not None
    return _seats(row)


async def get_seats(tx: Transaction, license_id: str) -> SeatsValue:
    """As they are; none of a license that never had a machine."""
    row = await tx.conn.fetchrow(GET_SEATS, *_in_tenant(tx, license_id))
    return NO_SEATS if row is None else _seats(row)


def _seats(row: asyncpg.Record) -> SeatsValue:
    return SeatsValue(
        row["machines"], row["users"], row["cores"], int(row["memory_bytes"]), int(row["disk_bytes"]), row["processes"],
        row["first_activated_at"],
    )  # fmt: skip


async def next_epoch(tx: Transaction, license_id: str) -> int:
    """The number of a new lease: greater than those of all leases of the license before."""
    return await tx.conn.fetchval(NEXT_EPOCH, *_in_tenant(tx, license_id))


async def count_of_user(tx: Transaction, license_id: str, user_id: str) -> int:
    """How many seats of a license a user has."""
    return await tx.conn.fetchval(COUNT_OF_USER, *_in_tenant(tx, license_id, user_id))


async def set_holder(tx: Transaction, machine_id: str, holder: str) -> None:
    """From now on this stream alone renews the machine's lease."""
    await tx.conn.execute(SET_HOLDER, *_in_tenant(tx, machine_id, holder))


async def renew_held(tx: Transaction, held: Sequence[Held]) -> Mapping[str, datetime]:
    """Until when the leases last that are renewed, by machine; the others are lost."""
    machine_ids = [one.machine_id for one in held]
    await tx.conn.execute(HOLD_BEATS, *_in_tenant(tx, machine_ids))
    rows = await tx.conn.fetch(
        RENEW_HELD,
        *_in_tenant(
            tx, tx.now, machine_ids, [one.epoch for one in held], [one.holder for one in held], [one.lasts for one in held],
            [one.ends_at for one in held],
        ),
    )  # fmt: skip
    return {row["machine_id"]: row["lease_expires_at"] for row in rows}


async def count_held(tx: Transaction, license_id: str, user_id: str | None) -> int:
    """How many seats of a license are held, of a user where one is named: not by leases that are over."""
    return await tx.conn.fetchval(COUNT_HELD, *_in_tenant(tx, license_id, tx.now, user_id))
