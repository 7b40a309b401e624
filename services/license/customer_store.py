"""Every SQL statement on customers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from services.license.customer_model import Customer
from shared.db import statements
from shared.db.pool import Transaction

_TABLE: Final = "license.customer"
_COLUMNS: Final = (
    "customer_id", "email", "subject_ref", "display_name", "banned_at", "ban_reason", "labels", "metadata", "revision",
    "created_at", "updated_at",
)  # fmt: skip

INSERT: Final = statements.insert(_TABLE, _COLUMNS) + " ON CONFLICT DO NOTHING"
INSERT_MANY: Final = statements.insert_many(_TABLE, _COLUMNS) + " ON CONFLICT DO NOTHING RETURNING customer_id"
GET: Final = statements.select(_TABLE, _COLUMNS, "customer_id = $3")
GET_BY_EMAIL: Final = statements.select(_TABLE, _COLUMNS, "email = $3")
GET_BY_SUBJECT: Final = statements.select(_TABLE, _COLUMNS, "subject_ref = $3")
LOCK: Final = GET + " FOR UPDATE"
HOLD: Final = GET + " FOR KEY SHARE"
HOLD_BY_EMAIL: Final = GET_BY_EMAIL + " FOR KEY SHARE"
HOLD_BY_SUBJECT: Final = GET_BY_SUBJECT + " FOR KEY SHARE"
HOLD_MANY: Final = statements.select(_TABLE, _COLUMNS, "customer_id = ANY ($3)") + statements.HOLD_IN_ORDER
HOLD_MANY_BY_EMAIL: Final = statements.select(_TABLE, _COLUMNS, "email = ANY ($3)") + statements.HOLD_IN_ORDER
HOLD_MANY_BY_SUBJECT: Final = statements.select(_TABLE, _COLUMNS, "subject_ref = ANY ($3)") + statements.HOLD_IN_ORDER
UPDATE: Final = statements.update(_TABLE, "customer_id", _COLUMNS[1:])


@dataclass(frozen=True, slots=True)
class CustomerFilter:
    """What a list is narrowed to; empty fields, and None, do not narrow."""

    email: str = ""
    subject_ref: str = ""
    banned: bool | None = None


def page_statement(narrowed: CustomerFilter) -> tuple[str, list[str]]:
    """The statement of a page and the values of its filters, from $5 on."""
    conditions: list[str] = []
    values: list[str] = []
    for column, value in (("email", narrowed.email.lower()), ("subject_ref", narrowed.subject_ref)):
        if value:
            values.append(value)
            conditions.append(f"{column} = ${4 + len(values)}")
    if narrowed.banned is not None:
        conditions.append("banned_at IS NOT NULL" if narrowed.banned else "banned_at IS NULL")
    return statements.page(_TABLE, _COLUMNS, "customer_id", *conditions), values


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


def _customer(row: asyncpg.Record | None) -> Customer | None:
    return None if row is None else Customer(**row)


def _values(customer: Customer) -> tuple[Any, ...]:
    return (
        customer.customer_id, customer.email, customer.subject_ref, customer.display_name, customer.banned_at,
        customer.ban_reason, dict(customer.labels), dict(customer.metadata), customer.revision, customer.created_at,
        customer.updated_at,
    )  # fmt: skip


async def insert(tx: Transaction, customer: Customer) -> bool:
    """Whether the customer is new; False when another one has the email or subject_ref."""
    return await tx.conn.execute(INSERT, *_in_tenant(tx, *_values(customer))) == "INSERT 0 1"


async def find(tx: Transaction, statement: str, value: str) -> Customer | None:
    """The customer by one of the GET or HOLD statements; one that is held nobody can delete or ban until this
    transaction ends."""
    return _customer(await tx.conn.fetchrow(statement, *_in_tenant(tx, value)))


async def insert_many(tx: Transaction, customers: Sequence[Customer]) -> set[str]:
    """The ids of those that are new; not those whose email or subject_ref another one has."""
    in_order = sorted(customers, key=lambda customer: (customer.email or "", customer.subject_ref or ""))
    rows = await asyncio.to_thread(statements.rows, _COLUMNS, [_values(customer) for customer in in_order])
    return {row["customer_id"] for row in await tx.conn.fetch(INSERT_MANY, *_in_tenant(tx, rows))}


async def hold_many(
    tx: Transaction, customer_ids: Sequence[str], emails: Sequence[str], subject_refs: Sequence[str]
) -> Sequence[Customer]:
    """Those that there are, by whichever name; one that is held nobody can delete or ban until this transaction ends."""
    found = [
        *await tx.conn.fetch(HOLD_MANY, *_in_tenant(tx, customer_ids)),
        *await tx.conn.fetch(HOLD_MANY_BY_EMAIL, *_in_tenant(tx, emails)),
        *await tx.conn.fetch(HOLD_MANY_BY_SUBJECT, *_in_tenant(tx, subject_refs)),
    ]
    return [Customer(**row) for row in found]


async def lock(tx: Transaction, customer_id: str) -> Customer | None:
    return _customer(await tx.conn.fetchrow(LOCK, *_in_tenant(tx, customer_id)))


async def page(tx: Transaction, after: str, limit: int, narrowed: CustomerFilter) -> Sequence[Customer]:
    statement, values = page_statement(narrowed)
    rows = await tx.conn.fetch(statement, *_in_tenant(tx, after, limit, *values))
    return [Customer(**row) for row in rows]


async def update(tx: Transaction, customer: Customer) -> None:
    await tx.conn.execute(UPDATE, *_in_tenant(tx, *_values(customer)))
