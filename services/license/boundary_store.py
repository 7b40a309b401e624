"""Every SQL statement of the worker that tells boundaries, over all tenants.

Who changes a license holds its row, and then the row of its boundaries by trigger. The worker takes both or neither, and
waits for none, so that it is never waited for by what it waits for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from services.license import store
from services.license.boundary_model import Boundary, Moments
from services.license.model import License
from shared.tenancy import Mode, Tenant

_TOLD: Final[Mapping[Boundary, str]] = {
    Boundary.EXPIRING_SOON: "expiring_soon_at",
    Boundary.GRACE_STARTED: "grace_started_at",
    Boundary.EXPIRED: "expired_at",
    Boundary.CHECK_IN_SOON: "check_in_soon_at",
    Boundary.CHECK_IN_OVERDUE: "check_in_overdue_at",
}

CLAIM: Final = (
    f"SELECT b.account_id, b.mode, b.license_id, now() AS now, {', '.join(f'b.{column}' for column in _TOLD.values())} "
    "FROM license.boundary AS b JOIN license.license AS l USING (account_id, mode, license_id) "
    "WHERE b.due_at <= now() ORDER BY b.due_at LIMIT $1 FOR NO KEY UPDATE OF b, l SKIP LOCKED"
)
"""Licenses to look at, longest due first; others look at those that others hold."""

SAVE: Final = (
    "UPDATE license.boundary SET due_at = $4, "
    + ", ".join(f"{column} = ${n}" for n, column in enumerate(_TOLD.values(), start=5))
    + " WHERE account_id = $1 AND mode = $2 AND license_id = $3"
)
REVOKE: Final = (
    "UPDATE license.license SET status = $4, status_reason = $5, revision = $6, updated_at = $7 "
    "WHERE account_id = $1 AND mode = $2 AND license_id = $3"
)
CLAIM_RECHECK: Final = (
    "SELECT account_id, mode, recheck_id, policy_id, after_license_id FROM license.boundary_recheck "
    "ORDER BY recheck_id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
LOOK_AGAIN: Final = (
    "WITH these AS MATERIALIZED (SELECT license_id FROM license.license WHERE account_id = $1 AND mode = $2 "
    "AND policy_id = $3 AND license_id > $4 ORDER BY license_id LIMIT $5) "
    "UPDATE license.boundary AS b SET due_at = least(b.due_at, now()) FROM these "
    "WHERE b.account_id = $1 AND b.mode = $2 AND b.license_id = these.license_id RETURNING b.license_id"
)
RECHECKED_TO: Final = (
    "UPDATE license.boundary_recheck SET after_license_id = $4 WHERE account_id = $1 AND mode = $2 AND recheck_id = $3"
)
RECHECKED: Final = "DELETE FROM license.boundary_recheck WHERE account_id = $1 AND mode = $2 AND recheck_id = $3"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A license to look at, which nobody changes until the transaction ends; what was told of it; the time by Postgres."""

    tenant: Tenant
    license: License
    told: Moments
    now: datetime


async def claim(conn: asyncpg.Connection, limit: int) -> list[Claimed]:
    """Up to `limit` licenses that are due and that nobody else holds."""
    rows = {(row["account_id"], row["mode"], row["license_id"]): row for row in await conn.fetch(CLAIM, limit)}
    # Read after they are held: a statement that waited would join a license as it has become with its policy as it was.
    licenses = await store.get_licenses_across(conn, list(rows))
    return [
        Claimed(
            Tenant(row["account_id"], Mode(row["mode"])),
            licenses[key],
            {kind: row[column] for kind, column in _TOLD.items() if row[column] is not None},
            row["now"],
        )
        for key, row in rows.items()
    ]


async def save(conn: asyncpg.Connection, looked_at: Sequence[tuple[Claimed, Moments, datetime | None]]) -> None:
    """What was told of each license, and when to look next."""
    await conn.executemany(
        SAVE, [(*_key(one), look_at, *(told.get(kind) for kind in _TOLD)) for one, told, look_at in looked_at]
    )


async def revoke(conn: asyncpg.Connection, revoked: Sequence[tuple[Claimed, License]]) -> None:
    """Stores the licenses as they are now."""
    await conn.executemany(
        REVOKE,
        [
            (*_key(one), changed.status.value, changed.status_reason, changed.revision, changed.updated_at)
            for one, changed in revoked
        ],
    )


async def recheck(conn: asyncpg.Connection, limit: int) -> bool:
    """Makes up to `limit` licenses under a changed policy due; returns whether there was such a policy."""
    row: asyncpg.Record | None = await conn.fetchrow(CLAIM_RECHECK)
    if row is None:
        return False
    tenant = (row["account_id"], row["mode"])
    found: list[Any] = await conn.fetch(LOOK_AGAIN, *tenant, row["policy_id"], row["after_license_id"], limit)
    if len(found) < limit:
        await conn.execute(RECHECKED, *tenant, row["recheck_id"])
    else:
        last = max(one["license_id"] for one in found)
        await conn.execute(RECHECKED_TO, *tenant, row["recheck_id"], last)
    return True


def _key(one: Claimed) -> tuple[str, str, str]:
    return (one.tenant.account_id, one.tenant.mode.value, one.license.license_id)
