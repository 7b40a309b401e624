"""Every SQL statement on machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg

from services.machine.model import DeactivationReason, IdentityKind, Machine
from services.machine.seat_store import lock_seats
from services.machine.terms import Terms
from services.machine.terms_store import terms_of_many
from shared.db import statements
from shared.db.pool import Transaction
from shared.rules.heartbeats import HeartbeatStatus

_MACHINE: Final = (
    "machine_id", "external_id", "license_id", "product_id", "policy_id", "user_id", "identity_kind", "identity_hash",
    "uniqueness_scope", "generation", "display_name", "hostname", "platform", "ip", "cores", "memory_bytes", "disk_bytes",
    "heartbeat_status", "heartbeat_from", "died_at", "offline_until", "lease_epoch", "activated_at", "deactivated_at",
    "deactivation_reason", "labels", "metadata", "revision", "updated_at",
)  # fmt: skip
_NAMED: Final = """
    coalesce((SELECT jsonb_object_agg({alias}.name, encode({alias}.fingerprint_hash, 'hex')) FROM machine.{table} AS {alias}
               WHERE {alias}.account_id = m.account_id AND {alias}.mode = m.mode AND {alias}.machine_id = m.machine_id), '{{}}')
"""
_WHOLE: Final = ", ".join(
    (
        *(f"m.{column}" for column in _MACHINE), "b.last_heartbeat_at", "b.lease_expires_at",
        _NAMED.format(table="fingerprint", alias="f") + " AS fingerprints",
        _NAMED.format(table="component", alias="c") + " AS components",
    )
)  # fmt: skip
_FROM: Final = """
      FROM machine.machine AS m
      LEFT JOIN machine.beat AS b ON b.account_id = m.account_id AND b.mode = m.mode AND b.machine_id = m.machine_id
     WHERE m.account_id = $1 AND m.mode = $2
"""

HOLD_SCOPE: Final = "SELECT pg_advisory_xact_lock(hashtextextended('machine/' || $1 || '/' || $2 || '/' || $3, 0))"
GET_MACHINE: Final = f"SELECT {_WHOLE} {_FROM} AND m.machine_id = $3"
GET_MACHINES: Final = f"SELECT {_WHOLE} {_FROM} AND m.machine_id = ANY ($3) ORDER BY m.machine_id"
GET_MACHINE_BY_EXTERNAL_ID: Final = f"SELECT {_WHOLE} {_FROM} AND m.external_id = $3"
LOCK_MACHINE: Final = statements.select("machine.machine", ("license_id",), "machine_id = $3") + " FOR UPDATE"
HOLD_BEAT: Final = statements.select("machine.beat", ("machine_id",), "machine_id = $3") + " FOR UPDATE"
HOLD_OVER: Final = """
    SELECT b.machine_id FROM machine.beat AS b
     WHERE b.account_id = $1 AND b.mode = $2 AND b.lease_expires_at <= $4 AND b.machine_id = ANY (ARRAY(
        SELECT m.machine_id FROM machine.machine AS m
         WHERE m.account_id = $1 AND m.mode = $2 AND m.license_id = $3 AND m.deactivated_at IS NULL))
     ORDER BY b.machine_id LIMIT 200 FOR UPDATE
"""
LICENSE_OF: Final = statements.select("machine.machine", ("license_id",), "machine_id = $3")
KNOWN_BY: Final = f"""
    SELECT {_WHOLE} {_FROM} AND m.deactivated_at IS NULL AND m.machine_id IN (
        SELECT f.machine_id FROM machine.fingerprint AS f
         WHERE f.account_id = $1 AND f.mode = $2 AND f.uniqueness_scope = $3 AND f.fingerprint_hash = ANY ($4)
        UNION
        SELECT f.machine_id FROM machine.fingerprint AS f
         WHERE f.account_id = $1 AND f.mode = $2 AND f.license_id = $5 AND f.fingerprint_hash = ANY ($4))
     ORDER BY m.machine_id
"""
LIVE_OF_LICENSE: Final = (
    f"SELECT {_WHOLE} {_FROM} AND m.license_id = $3 AND m.deactivated_at IS NULL ORDER BY m.machine_id"
)
GENERATIONS: Final = statements.select(
    "machine.machine", ("coalesce(max(generation), 0)",), "license_id = $3", "identity_hash = ANY ($4)"
)
GIVEN_UP: Final = statements.select(
    "machine.machine", ("count(*)",), "license_id = $3", "deactivated_at > $4",
    "deactivation_reason IN ('SELF', 'CUSTOMER', 'TRANSFERRED')",
)  # fmt: skip
UPDATE_MACHINE: Final = statements.update("machine.machine", "machine_id", _MACHINE[1:])
UPDATE_BEAT: Final = statements.update("machine.beat", "machine_id", ("last_heartbeat_at", "lease_expires_at"))
_FINGERPRINT: Final = ("machine_id", "name", "license_id", "uniqueness_scope", "fingerprint_hash")
_COMPONENT: Final = ("machine_id", "name", "uniqueness_scope", "fingerprint_hash")
INSERT_FINGERPRINTS: Final = statements.insert_many("machine.fingerprint", _FINGERPRINT)
_NEXT: Final = len(_MACHINE) + 3
# Foreign keys are looked at when the statement ends, so that the rows may come in any order.
INSERT_MACHINE: Final = f"""
    WITH made AS ({statements.insert("machine.machine", _MACHINE)}),
         beating AS (INSERT INTO machine.beat (account_id, mode, machine_id, last_heartbeat_at, lease_expires_at)
                     VALUES ($1, $2, $3, ${_NEXT}, ${_NEXT + 1}))
    {INSERT_FINGERPRINTS.replace("$3", f"${_NEXT + 2}")}
"""
INSERT_COMPONENTS: Final = statements.insert_many("machine.component", _COMPONENT)
DROP_FINGERPRINTS: Final = "DELETE FROM machine.fingerprint WHERE account_id = $1 AND mode = $2 AND machine_id = $3"
DROP_COMPONENTS: Final = "DELETE FROM machine.component WHERE account_id = $1 AND mode = $2 AND machine_id = $3"
DROP_PROCESSES: Final = "DELETE FROM machine.process WHERE account_id = $1 AND mode = $2 AND machine_id = $3"


@dataclass(frozen=True, slots=True)
class MachineFilter:
    """What a list is narrowed to; empty fields do not narrow. `customer_id` is the holder of the license."""

    license_id: str = ""
    product_id: str = ""
    policy_id: str = ""
    user_id: str = ""
    live: bool | None = None
    customer_id: str = ""
    held: bool = False
    """Whether those are left out whose lease is over."""


def page_of_machines_statement(narrowed: MachineFilter) -> tuple[str, list[str]]:
    """The statement of a page and the values of its filters, from $5 on."""
    conditions: list[str] = []
    values: list[str] = []
    for column in ("license_id", "product_id", "policy_id", "user_id"):
        if value := getattr(narrowed, column):
            values.append(value)
            conditions.append(f"m.{column} = ${4 + len(values)}")
    if narrowed.customer_id:
        values.append(narrowed.customer_id)
        mine = statements.select("license.activation_terms", ("license_id",), f"customer_id = ${4 + len(values)}")
        conditions.append(f"m.license_id IN ({mine})")
    if narrowed.live is not None:
        conditions.append(f"m.deactivated_at IS {'NULL' if narrowed.live else 'NOT NULL'}")
    if narrowed.held:
        conditions.append("(b.lease_expires_at IS NULL OR b.lease_expires_at > now())")
    narrowing = " ".join(f"AND {condition}" for condition in conditions)
    return f"SELECT {_WHOLE} {_FROM} AND m.machine_id > $3 {narrowing} ORDER BY m.machine_id LIMIT $4", values


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


def _machine(row: asyncpg.Record | None) -> Machine | None:
    if row is None:
        return None
    values: dict[str, Any] = {column: row[column] for column in (*_MACHINE, "last_heartbeat_at", "lease_expires_at")}
    values["identity_kind"] = IdentityKind(values["identity_kind"])
    values["heartbeat_status"] = HeartbeatStatus(values["heartbeat_status"])
    reason = values["deactivation_reason"]
    values["deactivation_reason"] = None if reason is None else DeactivationReason(reason)
    for name in ("fingerprints", "components"):
        values[name] = {key: bytes.fromhex(value) for key, value in row[name].items()}
    return Machine(**values)


def _values(machine: Machine) -> tuple[Any, ...]:
    given = {column: getattr(machine, column) for column in _MACHINE}
    given["labels"], given["metadata"] = dict(machine.labels), dict(machine.metadata)
    return tuple(given[column] for column in _MACHINE)


async def hold_scope(tx: Transaction, scope: str) -> None:
    """Nobody else who holds the scope can look for a machine in it until this transaction ends."""
    await tx.conn.execute(HOLD_SCOPE, *_in_tenant(tx, scope))


async def get_machine(tx: Transaction, machine_id: str) -> Machine | None:
    return _machine(await tx.conn.fetchrow(GET_MACHINE, *_in_tenant(tx, machine_id)))


async def get_machines(tx: Transaction, machine_ids: Sequence[str]) -> Sequence[Machine]:
    """Those of the machines that there are."""
    rows = await tx.conn.fetch(GET_MACHINES, *_in_tenant(tx, list(machine_ids)))
    return [found for row in rows if (found := _machine(row)) is not None]


async def get_machine_by_external_id(tx: Transaction, external_id: str) -> Machine | None:
    return _machine(await tx.conn.fetchrow(GET_MACHINE_BY_EXTERNAL_ID, *_in_tenant(tx, external_id)))


async def lock_machine(tx: Transaction, machine_id: str) -> Machine | None:
    """The machine, its beat and the seats of its license, which nobody else can change until this transaction ends. All who hold
    several take them in this order: seats, beat, machine."""
    license_id = await tx.conn.fetchval(LICENSE_OF, *_in_tenant(tx, machine_id))
    if license_id is None:
        return None
    await lock_seats(tx, license_id)
    await tx.conn.fetchval(HOLD_BEAT, *_in_tenant(tx, machine_id))
    await tx.conn.fetchval(LOCK_MACHINE, *_in_tenant(tx, machine_id))
    return await get_machine(tx, machine_id)


async def hold_beat(tx: Transaction, machine_id: str) -> Machine | None:
    """The machine, whose lease and seat nobody else can change until this transaction ends, without the seats of the license."""
    await tx.conn.fetchval(HOLD_BEAT, *_in_tenant(tx, machine_id))
    return await get_machine(tx, machine_id)


async def hold_over(tx: Transaction, license_id: str) -> Sequence[Machine]:
    """Machines of a license whose leases are over, up to 200: nobody can renew them any more. For whoever holds the seats."""
    ids = [row["machine_id"] for row in await tx.conn.fetch(HOLD_OVER, *_in_tenant(tx, license_id, tx.now))]
    return [found for one in ids if (found := await get_machine(tx, one)) is not None]


async def known_by(tx: Transaction, scope: str, license_id: str, hashes: Sequence[bytes]) -> Sequence[Machine]:
    """The machines in a scope, or of a license, that hold a seat and are known by one of the hashes. A machine keeps the scope
    that it was activated in, whatever its license's policy says by now."""
    rows = await tx.conn.fetch(KNOWN_BY, *_in_tenant(tx, scope, list(hashes), license_id))
    return [found for row in rows if (found := _machine(row)) is not None]


async def live_of_license(tx: Transaction, license_id: str) -> Sequence[Machine]:
    """All that hold a seat of a license."""
    rows = await tx.conn.fetch(LIVE_OF_LICENSE, *_in_tenant(tx, license_id))
    return [found for row in rows if (found := _machine(row)) is not None]


async def last_generation(tx: Transaction, license_id: str, identity_hashes: Sequence[bytes]) -> int:
    """How often an identity was activated on a license."""
    return await tx.conn.fetchval(GENERATIONS, *_in_tenant(tx, license_id, list(identity_hashes)))


async def given_up(tx: Transaction, license_id: str, within: timedelta) -> int:
    """How many machines of a license were given up by who holds it, or passed on."""
    return await tx.conn.fetchval(GIVEN_UP, *_in_tenant(tx, license_id, tx.now - within))


async def insert_machine(tx: Transaction, machine: Machine, component_scope: str) -> None:
    """The machine, what it is known by, and its parts."""
    beat = (machine.last_heartbeat_at, machine.lease_expires_at)
    await tx.conn.execute(INSERT_MACHINE, *_in_tenant(tx, *_values(machine), *beat, _fingerprints(machine)))
    if machine.components:
        parts = [(machine.machine_id, name, component_scope, hashed) for name, hashed in machine.components.items()]
        await tx.conn.execute(INSERT_COMPONENTS, *_in_tenant(tx, statements.rows(_COMPONENT, parts)))


async def set_fingerprints(tx: Transaction, machine: Machine) -> None:
    """What the machine is known by, in place of what it was."""
    await tx.conn.execute(DROP_FINGERPRINTS, *_in_tenant(tx, machine.machine_id))
    await tx.conn.execute(INSERT_FINGERPRINTS, *_in_tenant(tx, _fingerprints(machine)))


def _fingerprints(machine: Machine) -> str:
    """The rows of what a machine is known by."""
    rows = [
        (machine.machine_id, name, machine.license_id, machine.uniqueness_scope, hashed)
        for name, hashed in machine.fingerprints.items()
    ]
    return statements.rows(_FINGERPRINT, rows)


async def update_machine(tx: Transaction, machine: Machine) -> None:
    """The row, and the heartbeats; of one that has ended what it was known by goes, and its processes."""
    first, *rest = _values(machine)
    await tx.conn.execute(UPDATE_MACHINE, *_in_tenant(tx, first, *rest))
    await update_beat(tx, machine)
    if not machine.live:
        await tx.conn.execute(DROP_FINGERPRINTS, *_in_tenant(tx, first))
        await tx.conn.execute(DROP_COMPONENTS, *_in_tenant(tx, first))
        await tx.conn.execute(DROP_PROCESSES, *_in_tenant(tx, first))


async def update_beat(tx: Transaction, machine: Machine) -> None:
    """The heartbeats alone."""
    values = (machine.machine_id, machine.last_heartbeat_at, machine.lease_expires_at)
    await tx.conn.execute(UPDATE_BEAT, *_in_tenant(tx, *values))


async def page_of_machines(
    tx: Transaction, after: str, limit: int, narrowed: MachineFilter
) -> Sequence[tuple[Machine, Terms | None]]:
    """Each with what its license says of it; None of a license that is gone."""
    statement, values = page_of_machines_statement(narrowed)
    rows = await tx.conn.fetch(statement, *_in_tenant(tx, after, limit, *values))
    machines = [found for row in rows if (found := _machine(row)) is not None]
    terms = await terms_of_many(tx, sorted({machine.license_id for machine in machines}))
    return [(machine, terms.get(machine.license_id, (None, None))[0]) for machine in machines]
