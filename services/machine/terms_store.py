"""Every SQL statement on what licenses say of their machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import asyncpg

from services.machine.terms import Terms
from shared.db import statements
from shared.db.pool import Transaction
from shared.rules.fingerprints import MatchingRule
from shared.rules.heartbeats import HeartbeatBasis, HeartbeatCull, HeartbeatResurrection
from shared.rules.machine_terms import (
    ComponentUniqueness,
    MachineLeasing,
    MachineUniqueness,
    ProcessLeasing,
    SeatAcquire,
)
from shared.rules.seats import OverageStrategy

_TERMS: Final = tuple(field.name for field in fields(Terms))
_WORDS: Final[Mapping[str, Any]] = {
    "overage_strategy": OverageStrategy, "machine_uniqueness": MachineUniqueness, "machine_matching": MatchingRule,
    "component_uniqueness": ComponentUniqueness, "component_matching": MatchingRule, "machine_leasing": MachineLeasing,
    "process_leasing": ProcessLeasing, "seat_acquire": SeatAcquire, "heartbeat_basis": HeartbeatBasis,
    "heartbeat_cull": HeartbeatCull, "heartbeat_resurrection": HeartbeatResurrection,
}  # fmt: skip
TERMS_OF: Final = statements.select("license.activation_terms", _TERMS, "license_id = $3")
TERMS_OF_MANY: Final = statements.select("license.activation_terms", _TERMS, "license_id = ANY ($3)")
IS_HOLDER: Final = statements.select("license.holders", ("customer_id",), "customer_id = $3")
FIRST_ACTIVATED: Final = statements.select(
    "machine.seat", ("license_id", "first_activated_at"), "license_id = ANY ($3)"
)


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


async def terms_of(tx: Transaction, license_id: str) -> Terms | None:
    """What the license says of its machines, as it is by now."""
    row = await tx.conn.fetchrow(TERMS_OF, *_in_tenant(tx, license_id))
    return None if row is None else _terms(row)


def _terms(row: asyncpg.Record) -> Terms:
    values: dict[str, Any] = {name: row[name] for name in _TERMS}
    return Terms(**(values | {name: word(values[name]) for name, word in _WORDS.items()}))


async def is_customer(tx: Transaction, customer_id: str) -> bool:
    return await tx.conn.fetchval(IS_HOLDER, *_in_tenant(tx, customer_id)) is not None


async def terms_of_many(tx: Transaction, license_ids: Sequence[str]) -> Mapping[str, tuple[Terms, datetime | None]]:
    """What licenses say of their machines, by id, each with when its first machine was activated."""
    rows = await tx.conn.fetch(FIRST_ACTIVATED, *_in_tenant(tx, license_ids))
    first = {row["license_id"]: row["first_activated_at"] for row in rows}
    rows = await tx.conn.fetch(TERMS_OF_MANY, *_in_tenant(tx, license_ids))
    return {row["license_id"]: (_terms(row), first.get(row["license_id"])) for row in rows}
