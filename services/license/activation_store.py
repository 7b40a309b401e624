"""Every SQL statement on what the machine service shows of licenses: the view machine.activations, tenant by tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from shared.db.pool import Transaction

GET: Final = (
    "SELECT machines, first_activated_at FROM machine.activations "
    "WHERE account_id = $1 AND mode = $2 AND license_id = $3"
)
GET_FIRST: Final = (
    "SELECT license_id, first_activated_at FROM machine.activations "
    "WHERE account_id = $1 AND mode = $2 AND license_id = ANY ($3)"
)
ANY_UNDER_POLICY: Final = (
    "SELECT EXISTS (SELECT FROM license.license AS l "
    "CROSS JOIN LATERAL (SELECT v.machines FROM machine.activations AS v "
    "WHERE v.account_id = l.account_id AND v.mode = l.mode AND v.license_id = l.license_id LIMIT 1) AS a "
    "WHERE l.account_id = $1 AND l.mode = $2 AND l.policy_id = $3 AND a.machines > 0)"
)
IN_TENANT: Final = "SELECT set_config('lictor.account_id', $1, true), set_config('lictor.mode', $2, true)"


@dataclass(frozen=True, slots=True)
class Activation:
    """What is known of a license's machines: how many are not deactivated, and when the first ever was activated."""

    machines: int = 0
    first_activated_at: datetime | None = None


async def get(tx: Transaction, license_id: str) -> Activation:
    """Of one license; there may be other machines by the time that it is looked at."""
    row = await tx.conn.fetchrow(GET, tx.tenant.account_id, tx.tenant.mode.value, license_id)
    return Activation() if row is None else Activation(row["machines"], row["first_activated_at"])


async def any_under_policy(tx: Transaction, policy_id: str) -> bool:
    """Whether a license under the policy has a machine that is not deactivated."""
    return await tx.conn.fetchval(ANY_UNDER_POLICY, tx.tenant.account_id, tx.tenant.mode.value, policy_id)


async def first_of(
    conn: asyncpg.Connection, tenant: tuple[str, str], license_ids: Sequence[str]
) -> Mapping[str, datetime | None]:
    """When licenses of a tenant had their first machine, by id, for one who works over all tenants: the view shows what is of
    the tenant whose turn it is, and of none before and after."""
    await conn.execute(IN_TENANT, *tenant)
    rows = await conn.fetch(GET_FIRST, *tenant, list(license_ids))
    await conn.execute(IN_TENANT, "", "")
    return {row["license_id"]: row["first_activated_at"] for row in rows}
