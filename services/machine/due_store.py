"""Every SQL statement of the worker that looks at machines, over all tenants.

Whoever changes a machine holds its beat, and for a change of seats the row of those. The worker takes what nobody holds, and
waits for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from services.machine import store
from services.machine.model import Machine
from shared.db import statements
from shared.db.pool import Transaction
from shared.tenancy import Mode, Tenant

CLAIM: Final = (
    "SELECT b.account_id, b.mode, b.machine_id FROM machine.beat AS b WHERE b.due_at <= now() "
    "ORDER BY b.due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED"
)
"""Machines to look at, longest due first; others look at those that others hold."""

NOW: Final = "SELECT statement_timestamp()"
HOLD_SEATS: Final = (
    statements.select("machine.seat", ("license_id",), "license_id = ANY ($3)") + " FOR UPDATE SKIP LOCKED"
)
HOLD_MACHINES: Final = (
    statements.select("machine.machine", ("machine_id",), "machine_id = ANY ($3)") + " FOR UPDATE SKIP LOCKED"
)
LOOK_NEXT: Final = (
    "UPDATE machine.beat AS b SET due_at = w.due_at FROM unnest($3::text[], $4::timestamptz[]) AS w (machine_id, due_at) "
    "WHERE b.account_id = $1 AND b.mode = $2 AND b.machine_id = w.machine_id"
)


async def claim(conn: asyncpg.Connection, limit: int) -> Mapping[Tenant, Sequence[str]]:
    """Up to `limit` machines that are due and that nobody else holds; nobody changes what they live by until the end."""
    found: dict[Tenant, list[str]] = {}
    for row in await conn.fetch(CLAIM, limit):
        found.setdefault(Tenant(row["account_id"], Mode(row["mode"])), []).append(row["machine_id"])
    return found


async def enter(conn: asyncpg.Connection, tenant: Tenant) -> Transaction:
    """The worker's transaction inside a tenant, where the terms of its licenses are shown, at the time that it is by now."""
    return await Transaction(conn, tenant, await conn.fetchval(NOW)).enter(tenant)


async def machines(tx: Transaction, machine_ids: Sequence[str]) -> Sequence[Machine]:
    """As they are by now."""
    return await store.get_machines(tx, machine_ids)


async def hold_seats(tx: Transaction, license_ids: Sequence[str]) -> set[str]:
    """The licenses whose seats nobody else holds: those that this transaction holds now."""
    rows = await tx.conn.fetch(HOLD_SEATS, tx.tenant.account_id, tx.tenant.mode.value, license_ids)
    return {row["license_id"] for row in rows}


async def hold_machines(tx: Transaction, machine_ids: Sequence[str]) -> set[str]:
    """The same of machines."""
    rows = await tx.conn.fetch(HOLD_MACHINES, tx.tenant.account_id, tx.tenant.mode.value, machine_ids)
    return {row["machine_id"] for row in rows}


async def look_next(tx: Transaction, when: Mapping[str, datetime | None]) -> None:
    """When each machine is due next."""
    await tx.conn.execute(LOOK_NEXT, tx.tenant.account_id, tx.tenant.mode.value, list(when.keys()), list(when.values()))
