"""Every SQL statement on licenses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import asyncpg

from services.license import activation_store
from services.license.model import License, Status, counted
from services.license.terms import Overrides
from services.license.terms_rows import TERMS, terms_of
from shared.db import statements
from shared.db.pool import Transaction

_OVERRIDES: Final = tuple(field.name for field in fields(Overrides))
_LICENSE: Final = (
    "license_id", "external_id", "product_id", "policy_id", "tier_id", "customer_id", "display_name", "status",
    "status_reason", "key_hint", "starts_at", "expires_at", "expiry_anchored_at", "check_in_from", "last_check_in_at",
    *(f"{name}_override" for name in _OVERRIDES), "labels", "metadata", "revision", "created_at", "updated_at",
)  # fmt: skip
_WITH_TERMS: Final = ", ".join(
    (
        *(f"l.{column}" for column in _LICENSE), *(f"p.{column}" for column in TERMS), "p.check_in_since",
        "coalesce(u.uses, 0) AS uses", "u.last_validated_at",
    )
)  # fmt: skip
# The limit keeps the planner from reading the uses of licenses that are on no page.
_JOINED: Final = """
      JOIN license.policy AS p ON p.account_id = l.account_id AND p.mode = l.mode AND p.policy_id = l.policy_id
      LEFT JOIN LATERAL (
               SELECT i.uses, i.last_validated_at FROM license.license_usage AS i
                WHERE i.account_id = l.account_id AND i.mode = l.mode AND i.license_id = l.license_id LIMIT 1
           ) AS u ON true
"""
# What the machine service shows of a license; what another tenant has is not there, whoever asks.
_FIRST_ACTIVATION: Final = """
      LEFT JOIN LATERAL (
               SELECT v.first_activated_at FROM machine.activations AS v
                WHERE v.account_id = l.account_id AND v.mode = l.mode AND v.license_id = l.license_id
                  AND l.expiry_anchored_at IS NULL AND p.expiration_basis = 'FROM_FIRST_ACTIVATION' LIMIT 1
           ) AS a ON true
"""
_SELECT: Final = (
    f"SELECT {_WITH_TERMS}, a.first_activated_at FROM license.license AS l {_JOINED} {_FIRST_ACTIVATION} "
    "WHERE l.account_id = $1 AND l.mode = $2"
)

INSERT_LICENSE: Final = statements.insert("license.license", _LICENSE)
INSERT_LICENSES: Final = statements.insert_many("license.license", _LICENSE)
INSERT_USES: Final = statements.insert_many("license.license_usage", ("license_id", "uses"))
GET_LICENSE: Final = f"{_SELECT} AND l.license_id = $3"
GET_LICENSES: Final = f"{_SELECT} AND l.license_id = ANY ($3)"
GET_LICENSE_BY_EXTERNAL_ID: Final = f"{_SELECT} AND l.external_id = $3"
GET_LICENSES_BY_EXTERNAL_ID: Final = f"{_SELECT} AND l.external_id = ANY ($3)"
# Locked by itself, and read by the statement after it: one that waited for the lock would join the row as it has become
# with the policy as it was.
LOCK_LICENSE: Final = statements.select("license.license", ("license_id",), "license_id = $3") + " FOR UPDATE"
GET_LICENSES_ACROSS: Final = (
    f"SELECT l.account_id, l.mode, {_WITH_TERMS} FROM unnest($1::text[], $2::text[], $3::text[]) AS k (account_id, mode, id) "
    f"JOIN license.license AS l ON l.account_id = k.account_id AND l.mode = k.mode AND l.license_id = k.id {_JOINED}"
)
UPDATE_LICENSE: Final = statements.update("license.license", "license_id", _LICENSE[1:])
SET_USES: Final = """
    INSERT INTO license.license_usage AS u (account_id, mode, license_id, uses) VALUES ($1, $2, $3, $4)
        ON CONFLICT (account_id, mode, license_id) DO UPDATE SET uses = excluded.uses
"""
DELETE_LICENSE: Final = "DELETE FROM license.license WHERE account_id = $1 AND mode = $2 AND license_id = $3"

# As `effective_expiry` says; the greatest of a moment and none is the moment.
EXPIRY: Final = (
    "CASE WHEN a.first_activated_at IS NULL THEN l.expires_at "
    "ELSE greatest(a.first_activated_at, l.starts_at) + coalesce(p.trial_duration, p.duration) END"
)
_ENDED: Final = f"{EXPIRY} + p.grace_period <= now()"
_BY_STATUS: Final = {
    Status.ACTIVE: f"l.status = 'active' AND ({_ENDED}) IS NOT TRUE",
    Status.EXPIRED: f"l.status = 'active' AND {_ENDED} AND p.expiration_strategy <> 'REVOKE'",
    Status.SUSPENDED: "l.status = 'suspended'",
    Status.REVOKED: "l.status IN ('revoked', 'active') "
    f"AND (l.status = 'revoked' OR {_ENDED} AND p.expiration_strategy = 'REVOKE')",
    Status.BANNED: "l.status = 'banned'",
}


LicenseKey = tuple[str, str, str]
"""Account, mode and id: which license of all tenants'."""


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
            conditions.append(f"l.{column} = ${4 + len(values)}")
    if narrowed.customer_email:
        values.append(narrowed.customer_email.lower())
        mine = statements.select("license.customer", ("customer_id",), f"email = ${4 + len(values)}")
        conditions.append(f"l.customer_id = ({mine})")
    if narrowed.status is not None:
        conditions.append(_BY_STATUS[narrowed.status])
    narrowing = " ".join(f"AND {condition}" for condition in conditions)
    return f"{_SELECT} AND l.license_id > $3 {narrowing} ORDER BY l.license_id LIMIT $4", values


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


def _license(row: asyncpg.Record | None) -> License | None:
    if row is None:
        return None
    own = (column for column in _LICENSE if not column.endswith("_override"))
    values: dict[str, Any] = {column: row[column] for column in (*own, "check_in_since", "uses", "last_validated_at")}
    values["status"] = Status(values["status"])
    overrides = Overrides(*(row[f"{name}_override"] for name in _OVERRIDES))
    first_activated_at = row.get("first_activated_at")
    return counted(License(**values, overrides=overrides, terms=terms_of(row), first_activated_at=first_activated_at))


def _values(license_: License) -> tuple[Any, ...]:
    return (
        license_.license_id, license_.external_id, license_.product_id, license_.policy_id, license_.tier_id,
        license_.customer_id, license_.display_name, license_.status.value, license_.status_reason, license_.key_hint,
        license_.starts_at, None if license_.awaits_activation else license_.expires_at, license_.expiry_anchored_at,
        license_.check_in_from,
        license_.last_check_in_at, *(getattr(license_.overrides, name) for name in _OVERRIDES), dict(license_.labels),
        dict(license_.metadata), license_.revision, license_.created_at, license_.updated_at,
    )  # fmt: skip


async def insert_license(tx: Transaction, license_: License) -> None:
    await tx.conn.execute(INSERT_LICENSE, *_in_tenant(tx, *_values(license_)))


async def insert_licenses(tx: Transaction, licenses: Sequence[License]) -> None:
    """With their uses."""
    rows = await asyncio.to_thread(lambda: statements.rows(_LICENSE, [_values(license_) for license_ in licenses]))
    await tx.conn.execute(INSERT_LICENSES, *_in_tenant(tx, rows))
    if used := [(license_.license_id, license_.uses) for license_ in licenses if license_.uses]:
        await tx.conn.execute(INSERT_USES, *_in_tenant(tx, statements.rows(("license_id", "uses"), used)))


async def get_licenses_by_external_id(tx: Transaction, external_ids: Sequence[str]) -> Sequence[License]:
    """Those that there are."""
    rows = await tx.conn.fetch(GET_LICENSES_BY_EXTERNAL_ID, *_in_tenant(tx, external_ids))
    return [found for row in rows if (found := _license(row)) is not None]


async def get_license(tx: Transaction, license_id: str) -> License | None:
    return _license(await tx.conn.fetchrow(GET_LICENSE, *_in_tenant(tx, license_id)))


async def get_license_by_external_id(tx: Transaction, external_id: str) -> License | None:
    return _license(await tx.conn.fetchrow(GET_LICENSE_BY_EXTERNAL_ID, *_in_tenant(tx, external_id)))


async def get_licenses(tx: Transaction, license_ids: Sequence[str]) -> Sequence[License]:
    """Those that there are, in any order."""
    rows = await tx.conn.fetch(GET_LICENSES, *_in_tenant(tx, list(license_ids)))
    return [found for row in rows if (found := _license(row)) is not None]


async def lock_license(tx: Transaction, license_id: str) -> License | None:
    """The license, which nobody else can change until this transaction ends."""
    if await tx.conn.fetchval(LOCK_LICENSE, *_in_tenant(tx, license_id)) is None:
        return None
    return await get_license(tx, license_id)


async def get_licenses_across(conn: asyncpg.Connection, keys: Sequence[LicenseKey]) -> Mapping[LicenseKey, License]:
    """Licenses of any tenants that the connection's role may read."""
    rows = await conn.fetch(GET_LICENSES_ACROSS, *([key[n] for key in keys] for n in range(3)))
    found = {(row["account_id"], row["mode"], row["license_id"]): _license(row) for row in rows}
    licenses = {key: license_ for key, license_ in found.items() if license_ is not None}
    awaiting: dict[tuple[str, str], list[str]] = {}
    for (account_id, mode, license_id), license_ in licenses.items():
        if license_.awaits_activation:
            awaiting.setdefault((account_id, mode), []).append(license_id)
    for tenant, license_ids in awaiting.items():
        for license_id, at in (await activation_store.first_of(conn, tenant, license_ids)).items():
            key = (*tenant, license_id)
            licenses[key] = counted(replace(licenses[key], first_activated_at=at))
    return licenses


async def page_of_licenses(tx: Transaction, after: str, limit: int, narrowed: LicenseFilter) -> Sequence[License]:
    statement, values = page_of_licenses_statement(narrowed)
    rows = await tx.conn.fetch(statement, *_in_tenant(tx, after, limit, *values))
    return [found for row in rows if (found := _license(row)) is not None]


async def update_license(tx: Transaction, license_: License) -> None:
    first, *rest = _values(license_)
    await tx.conn.execute(UPDATE_LICENSE, *_in_tenant(tx, first, *rest))


async def set_uses(tx: Transaction, license_: License) -> None:
    """Stores how many uses a license has that this transaction has locked."""
    await tx.conn.execute(SET_USES, *_in_tenant(tx, license_.license_id, license_.uses))


async def delete_license(tx: Transaction, license_id: str) -> None:
    """Deletes the license; its keys' rows stay, without a license."""
    await tx.conn.execute(DELETE_LICENSE, *_in_tenant(tx, license_id))
