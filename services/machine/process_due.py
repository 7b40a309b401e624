"""What the worker does about processes that were not heard of in time: it frees their places, and tells of each once.

It takes what nobody holds, and waits for nobody. A process whose machine or seats somebody holds is looked at again soon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from services.machine import due_store, process_store, terms_store
from services.machine.events import process_event
from services.machine.fates import RECHECK
from services.machine.processes import Process
from services.machine.terms import Terms
from shared.db.outbox import SOURCE_WORKER, emit_many
from shared.db.pool import Transaction
from shared.tenancy import Mode, Tenant

DEAD: Final = "process.heartbeat.dead"
WHERE_HELD: Final = timedelta(seconds=1)

CLAIM: Final = f"""
    SELECT account_id, mode, {", ".join(process_store.COLUMNS)} FROM machine.process WHERE due_at <= now()
     ORDER BY due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - put together from constants
"""Processes to look at, longest due first; others look at those that others hold."""

LOOK_NEXT: Final = (
    "UPDATE machine.process AS p SET due_at = w.due_at "
    "FROM unnest($3::text[], $4::text[], $5::timestamptz[]) AS w (machine_id, process_id, due_at) "
    "WHERE p.account_id = $1 AND p.mode = $2 AND p.machine_id = w.machine_id AND p.process_id = w.process_id"
)


async def look(conn: asyncpg.Connection, limit: int) -> tuple[int, Sequence[timedelta]]:
    """Looks at up to `limit` processes that are due: at how many, and how late each is told of that is dead."""
    found: dict[Tenant, list[Process]] = {}
    rows = await conn.fetch(CLAIM, limit)
    for row in rows:
        found.setdefault(Tenant(row["account_id"], Mode(row["mode"])), []).append(process_store.process_of(row))
    late: list[timedelta] = []
    for tenant, processes in found.items():
        late += await _look_at(await due_store.enter(conn, tenant), processes)
    return len(rows), late


async def _look_at(tx: Transaction, processes: Sequence[Process]) -> Sequence[timedelta]:
    known = await terms_store.terms_of_many(tx, sorted({one.license_id for one in processes}))
    terms = {license_id: one for license_id, (one, _) in known.items()}
    dead = [one for one in processes if _is_dead(one, terms, tx.now)]
    gone = await _held(tx, dead) if dead else ()
    if gone:
        await process_store.drop_many(tx, gone)
        await emit_many(tx, [process_event(DEAD, one, "worker", SOURCE_WORKER) for one in gone])
    freed = {one.process_id for one in gone}
    await _look_next(tx, {one: _next(one, terms, tx.now) for one in processes if one.process_id not in freed})
    return [tx.now - one.deadline(terms[one.license_id].heartbeat_interval) for one in gone]


async def _held(tx: Transaction, dead: Sequence[Process]) -> Sequence[Process]:
    """Those whose seats and machine nobody else holds, who could be telling of the machine too: this transaction does now."""
    seats = await due_store.hold_seats(tx, sorted({one.license_id for one in dead}))
    free = [one for one in dead if one.license_id in seats]
    machines = await due_store.hold_machines(tx, sorted({one.machine_id for one in free}))
    return [one for one in free if one.machine_id in machines]


def _is_dead(process: Process, terms: Mapping[str, Terms], now: datetime) -> bool:
    """Those of a license that is gone go with their machine."""
    under = terms.get(process.license_id)
    return under is not None and process.is_dead(under.heartbeat_interval, now)


def _next(process: Process, terms: Mapping[str, Terms], now: datetime) -> datetime:
    """Soon for one that is dead and was not freed; else when it is, and early enough to see that its policy has changed."""
    under = terms.get(process.license_id)
    if under is None:
        return now + RECHECK
    if process.is_dead(under.heartbeat_interval, now):
        return now + WHERE_HELD
    return min(process.deadline(under.heartbeat_interval), now + RECHECK)


async def _look_next(tx: Transaction, when: Mapping[Process, datetime]) -> None:
    machine_ids, process_ids = [one.machine_id for one in when], [one.process_id for one in when]
    await tx.conn.execute(
        LOOK_NEXT, tx.tenant.account_id, tx.tenant.mode.value, machine_ids, process_ids, list(when.values())
    )
