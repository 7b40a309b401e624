"""Every SQL statement on processes inside a tenant.

Whoever starts or ends processes holds the seats of their license; a heartbeat of one that lives holds its row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Final

import asyncpg

from services.machine.processes import Among, Process
from shared.db import statements
from shared.db.pool import Transaction

MOST_FREED: Final = 200
"""How many dead ones are freed by one that needs a place; the worker frees the others."""

COLUMNS: Final = tuple(field.name for field in fields(Process))
_ALL: Final = ", ".join(COLUMNS)
_MINE: Final = "account_id = $1 AND mode = $2"

HOLD: Final = statements.select("machine.process", COLUMNS, "machine_id = $3", "name = $4") + " FOR NO KEY UPDATE"
INSERT: Final = statements.insert("machine.process", (*COLUMNS, "due_at"))
BEAT: Final = f"UPDATE machine.process SET last_heartbeat_at = $5 WHERE {_MINE} AND machine_id = $3 AND process_id = $4"
DROP: Final = f"DELETE FROM machine.process WHERE {_MINE} AND machine_id = $3 AND name = $4 RETURNING {_ALL}"
DROP_MANY: Final = f"DELETE FROM machine.process WHERE {_MINE} AND process_id = ANY ($4) AND machine_id = ANY ($3)"
_DROP_DEAD: Final = f"""
    DELETE FROM machine.process WHERE {_MINE} AND {{among}} AND last_heartbeat_at <= $4 AND process_id = ANY (ARRAY(
        SELECT process_id FROM machine.process WHERE {_MINE} AND {{among}} AND last_heartbeat_at <= $4
         ORDER BY process_id LIMIT {MOST_FREED}))
    RETURNING {_ALL}
"""
_OF_LICENSE: Final = "license_id = $3 AND ($5::text IS NULL OR user_id = $5)"
DROP_DEAD_OF_MACHINE: Final = _DROP_DEAD.format(among="machine_id = $3")
DROP_DEAD_OF_LICENSE: Final = _DROP_DEAD.format(among=_OF_LICENSE)
COUNT_OF_MACHINE: Final = statements.select(
    "machine.process", ("count(*)",), "machine_id = $3", "last_heartbeat_at > $4"
)
COUNT_OF_LICENSE: Final = statements.select("machine.process", ("count(*)",), _OF_LICENSE, "last_heartbeat_at > $4")
PAGE: Final = statements.page(
    "machine.process", COLUMNS, "process_id", "license_id = $5", "last_heartbeat_at > $6",
    "($7::text IS NULL OR machine_id = $7)", "($8::text IS NULL OR user_id = $8)",
)  # fmt: skip


def process_of(row: asyncpg.Record) -> Process:
    """A row with `COLUMNS`."""
    return Process(**{column: row[column] for column in COLUMNS})


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


async def hold(tx: Transaction, machine_id: str, name: str) -> Process | None:
    """The process of a name, dead or alive, that nobody else can change until this transaction ends."""
    row = await tx.conn.fetchrow(HOLD, *_in_tenant(tx, machine_id, name))
    return None if row is None else process_of(row)


async def insert(tx: Transaction, process: Process, due_at: datetime) -> None:
    """A new one; the worker looks at it first at `due_at`."""
    values = [getattr(process, column) for column in COLUMNS]
    await tx.conn.execute(INSERT, *_in_tenant(tx, *values, due_at))


async def beat(tx: Transaction, process: Process) -> None:
    """Stores its last heartbeat."""
    await tx.conn.execute(BEAT, *_in_tenant(tx, process.machine_id, process.process_id, process.last_heartbeat_at))


async def drop(tx: Transaction, machine_id: str, name: str) -> Process | None:
    """Frees the place of the process of a name; None where there is none."""
    row = await tx.conn.fetchrow(DROP, *_in_tenant(tx, machine_id, name))
    return None if row is None else process_of(row)


async def drop_many(tx: Transaction, gone: Sequence[Process]) -> None:
    """Frees the places of processes that the transaction holds."""
    machine_ids, process_ids = [one.machine_id for one in gone], [one.process_id for one in gone]
    await tx.conn.execute(DROP_MANY, *_in_tenant(tx, machine_ids, process_ids))


async def drop_dead(tx: Transaction, among: Among, heard_since: datetime) -> Sequence[Process]:
    """Frees the places of those that were not heard of later than that; returns them."""
    if among.machine_id is not None:
        rows = await tx.conn.fetch(DROP_DEAD_OF_MACHINE, *_in_tenant(tx, among.machine_id, heard_since))
    else:
        rows = await tx.conn.fetch(DROP_DEAD_OF_LICENSE, *_in_tenant(tx, among.license_id, heard_since, among.user_id))
    return [process_of(row) for row in rows]


async def count(tx: Transaction, among: Among, heard_since: datetime) -> int:
    """How many of them live."""
    if among.machine_id is not None:
        return await tx.conn.fetchval(COUNT_OF_MACHINE, *_in_tenant(tx, among.machine_id, heard_since))
    return await tx.conn.fetchval(COUNT_OF_LICENSE, *_in_tenant(tx, among.license_id, heard_since, among.user_id))


async def page(tx: Transaction, after: str, limit: int, among: Among, heard_since: datetime) -> Sequence[Process]:
    """Those that live, in id order."""
    rows = await tx.conn.fetch(
        PAGE, *_in_tenant(tx, after, limit, among.license_id, heard_since, among.machine_id, among.user_id)
    )
    return [process_of(row) for row in rows]
