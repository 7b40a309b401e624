"""Every SQL statement of the batches of heartbeats, over all tenants.

A batch waits for nobody. Whoever changes a machine holds its beat, and whoever ends a process its row: rows that somebody holds
are left out, and the batch holds no other kind of row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from services.machine import process_store
from services.machine.processes import Process
from shared.db.pool import Database
from shared.rules.heartbeats import DRIFT

Key = tuple[str, str, str]
"""Account, mode, machine."""

ProcessKey = tuple[str, str, str, str]
"""Account, mode, machine, name of the process."""

_KEYS: Final = "unnest($1::text[], $2::text[], $3::text[])"

LOAD: Final = f"""
    SELECT w.account_id, w.mode, w.machine_id, m.license_id, p.require_heartbeat, p.heartbeat_interval
      FROM {_KEYS} AS w (account_id, mode, machine_id),
           LATERAL machine.machine_facts(w.account_id, w.mode, w.machine_id) AS m,
           LATERAL license.license_facts(w.account_id, w.mode, m.license_id) AS l,
           LATERAL license.policy_facts(w.account_id, w.mode, l.policy_id) AS p
     WHERE NOT m.deactivated
"""
"""What the machines live under, for who reads facts."""

HOLD: Final = f"""
    SELECT b.account_id, b.mode, b.machine_id
      FROM {_KEYS} AS w (account_id, mode, machine_id)
      JOIN machine.beat AS b ON b.account_id = w.account_id AND b.mode = w.mode AND b.machine_id = w.machine_id
     ORDER BY b.account_id, b.mode, b.machine_id FOR NO KEY UPDATE OF b SKIP LOCKED
"""

TAKE: Final = """
    UPDATE machine.beat AS b SET last_heartbeat_at = greatest(b.last_heartbeat_at, statement_timestamp())
      FROM unnest($1::text[], $2::text[], $3::text[], $4::interval[]) AS w (account_id, mode, machine_id, lives_for),
           machine.machine AS m
     WHERE b.account_id = w.account_id AND b.mode = w.mode AND b.machine_id = w.machine_id
       AND m.account_id = w.account_id AND m.mode = w.mode AND m.machine_id = w.machine_id
       AND m.deactivated_at IS NULL AND m.heartbeat_status = 'ALIVE'
       AND (b.lease_expires_at IS NULL OR b.lease_expires_at > statement_timestamp())
       AND (w.lives_for IS NULL OR m.heartbeat_from IS NULL
            OR greatest(m.heartbeat_from, b.last_heartbeat_at, m.offline_until) + w.lives_for > statement_timestamp())
    RETURNING b.account_id, b.mode, b.machine_id, b.last_heartbeat_at, m.heartbeat_from, m.offline_until
"""
"""After HOLD, so that a death that was committed before is seen; by the time that it is, not by that of the transaction."""

_NAMES: Final = "unnest($1::text[], $2::text[], $3::text[], $4::text[])"
_SAME: Final = "p.account_id = w.account_id AND p.mode = w.mode AND p.machine_id = w.machine_id AND p.name = w.name"
_PROCESS: Final = ", ".join(f"p.{column}" for column in process_store.COLUMNS)

HOLD_PROCESSES: Final = f"""
    SELECT p.account_id, p.mode, p.machine_id, p.name
      FROM {_NAMES} AS w (account_id, mode, machine_id, name) JOIN machine.process AS p ON {_SAME}
     ORDER BY p.account_id, p.mode, p.machine_id, p.name FOR NO KEY UPDATE OF p SKIP LOCKED
"""

TAKE_PROCESSES: Final = f"""
    UPDATE machine.process AS p SET last_heartbeat_at = greatest(p.last_heartbeat_at, statement_timestamp())
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::interval[])
           AS w (account_id, mode, machine_id, name, lives_for), machine.beat AS b
     WHERE {_SAME} AND b.account_id = w.account_id AND b.mode = w.mode AND b.machine_id = w.machine_id
       AND (b.lease_expires_at IS NULL OR b.lease_expires_at > statement_timestamp())
       AND p.last_heartbeat_at + w.lives_for > statement_timestamp()
    RETURNING p.account_id, p.mode, {_PROCESS}
"""
"""A process that is dead, or has no place by now, starts elsewhere."""


@dataclass(frozen=True, slots=True)
class Under:
    """What a machine that has a seat lives under."""

    license_id: str
    required: bool
    interval: timedelta


@dataclass(frozen=True, slots=True)
class Heard:
    """The beat of a machine that is alive, as it was stored."""

    last_heartbeat_at: datetime
    heartbeat_from: datetime | None
    offline_until: datetime | None


async def load(facts: Database, keys: Sequence[Key]) -> Mapping[Key, Under]:
    """Of each machine that has a seat, and whose license there is, as the record has it by now."""
    return {
        _key(row): Under(row["license_id"], row["require_heartbeat"], row["heartbeat_interval"])
        for row in await facts.load(LOAD, *_columns(keys))
    }


async def take(conn: asyncpg.Connection, wanted: Mapping[Key, Under]) -> Mapping[Key, Heard]:
    """Stores the beats of those that nobody else holds and that are alive; returns them."""
    held = [_key(row) for row in await conn.fetch(HOLD, *_columns(list(wanted)))]
    lives_for = [wanted[key].interval + DRIFT if wanted[key].required else None for key in held]
    return {
        _key(row): Heard(row["last_heartbeat_at"], row["heartbeat_from"], row["offline_until"])
        for row in await conn.fetch(TAKE, *_columns(held), lives_for)
    }


async def take_processes(
    conn: asyncpg.Connection, wanted: Mapping[ProcessKey, timedelta]
) -> Mapping[ProcessKey, Process]:
    """The same of processes, each with the interval of its heartbeats."""
    names = [key[3] for key in wanted]
    found = await conn.fetch(HOLD_PROCESSES, *_columns(list(wanted)), names)
    held: list[ProcessKey] = [(*_key(row), row["name"]) for row in found]
    lives_for = [wanted[key] + DRIFT for key in held]
    rows = await conn.fetch(TAKE_PROCESSES, *_columns(held), [key[3] for key in held], lives_for)
    return {(*_key(row), row["name"]): process_store.process_of(row) for row in rows}


def _key(row: asyncpg.Record) -> Key:
    return (row["account_id"], row["mode"], row["machine_id"])


def _columns(keys: Sequence[Key | ProcessKey]) -> tuple[Any, Any, Any]:
    return [key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]
