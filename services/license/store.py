"""Every SQL statement on licenses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from services.license.model import License, Status
from shared.db import statements
from shared.db.pool import Transaction

_LICENSE: Final = (
    "license_id", "external_id", "product_id", "policy_id", "tier_id", "customer_id", "display_name", "status",
    "status_reason", "key_hint", "starts_at", "expires_at", "labels", "metadata", "revision", "created_at", "updated_at",
)  # fmt: skip

INSERT_LICENSE: Final = statements.insert("license.license", _LICENSE)
GET_LICENSE: Final = statements.select("license.license", _LICENSE, "license_id = $3")
GET_LICENSE_BY_EXTERNAL_ID: Final = statements.select("license.license", _LICENSE, "external_id = $3")
LOCK_LICENSE: Final = GET_LICENSE + " FOR UPDATE"
UPDATE_LICENSE: Final = statements.update("license.license", "license_id", _LICENSE[1:])
DELETE_LICENSE: Final = "DELETE FROM license.license WHERE account_id = $1 AND mode = $2 AND license_id = $3"

_BY_STATUS: Final = {
    Status.ACTIVE: "status = 'active' AND (expires_at IS NULL OR expires_at > now())",
    Status.EXPIRED: "status = 'active' AND expires_at <= now()",
    Status.SUSPENDED: "status = 'suspended'",
    Status.REVOKED: "status = 'revoked'",
    Status.BANNED: "status = 'banned'",
}


@dataclass(frozen=True, slots=True)
class LicenseFilter:
    """What a list is narrowed to; empty fields do not narrow."""

    product_id: str = ""
    policy_id: str = ""
    customer_id: str = ""
    customer_email: str = ""
    tier_id: str = ""
    status: Status | None = None


def page_of_licenses_statement(narrowed: LicenseFilter) -> tuple[str, list[str]]:
    """The statement of a page and the values of its filters, from $5 on."""
    conditions: list[str] = []
    values: list[str] = []
    for column in ("product_id", "policy_id", "customer_id", "tier_id"):
        if value := getattr(narrowed, column):
            values.append(value)
            conditions.append(f"{column} = ${4 + len(values)}")
    if narrowed.customer_email:
        values.append(narrowed.customer_email.lower())
        mine = statements.select("license.customer", ("customer_id",), f"email = ${4 + len(values)}")
        conditions.append(f"customer_id = ({mine})")
    if narrowed.status is not None:
        conditions.append(_BY_STATUS[narrowed.status])
    return statements.page("license.license", _LICENSE, "license_id", *conditions), values


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


def _license(row: asyncpg.Record | None) -> License | None:
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    values["status"] = Status(values["status"])
    return License(**values)


def _values(license_: License) -> tuple[Any, ...]:
    return (
        license_.license_id, license_.external_id, license_.product_id, license_.policy_id, license_.tier_id,
        license_.customer_id,
        license_.display_name, license_.status.value, license_.status_reason, license_.key_hint, license_.starts_at,
        license_.expires_at, dict(license_.labels), dict(license_.metadata), license_.revision, license_.created_at,
        license_.updated_at,
    )  # fmt: skip


async def insert_license(tx: Transaction, license_: License) -> None:
    await tx.conn.execute(INSERT_LICENSE, *_in_tenant(tx, *_values(license_)))


async def get_license(tx: Transaction, license_id: str) -> License | None:
    return _license(await tx.conn.fetchrow(GET_LICENSE, *_in_tenant(tx, license_id)))


async def get_license_by_external_id(tx: Transaction, external_id: str) -> License | None:
    return _license(await tx.conn.fetchrow(GET_LICENSE_BY_EXTERNAL_ID, *_in_tenant(tx, external_id)))


async def lock_license(tx: Transaction, license_id: str) -> License | None:
    return _license(await tx.conn.fetchrow(LOCK_LICENSE, *_in_tenant(tx, license_id)))


async def page_of_licenses(tx: Transaction, after: str, limit: int, narrowed: LicenseFilter) -> Sequence[License]:
    statement, values = page_of_licenses_statement(narrowed)
    rows = await tx.conn.fetch(statement, *_in_tenant(tx, after, limit, *values))
    return [found for row in rows if (found := _license(row)) is not None]


async def update_license(tx: Transaction, license_: License) -> None:
    first, *rest = _values(license_)
    await tx.conn.execute(UPDATE_LICENSE, *_in_tenant(tx, first, *rest))


async def delete_license(tx: Transaction, license_id: str) -> None:
    """Deletes the license; its keys' rows stay, without a license."""
    await tx.conn.execute(DELETE_LICENSE, *_in_tenant(tx, license_id))
