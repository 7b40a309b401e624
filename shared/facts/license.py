"""The facts of a validation: one load, one statement, one snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from shared.db.pool import Database
from shared.tenancy import Tenant

_FACTS: Final = """
    SELECT clock_timestamp() AS at, l.license_id, l.product_id, l.policy_id, l.status, l.starts_at, l.expires_at,
           p.is_trial, l.tier_id, t.slug AS tier, t.position AS tier_position, r.position AS required_position,
           coalesce(c.banned, false) AS customer_banned, k.expires_at AS key_expires_at
"""
# The functions' own columns have the database's collation, with which no index on the tables' would serve. No tier
# has the empty slug of a caller that asks for none.
_JOINS: Final = """
      LEFT JOIN LATERAL license.license_facts($1, $2, k.license_id) AS l ON true
      LEFT JOIN LATERAL license.policy_facts($1, $2, l.policy_id) AS p ON true
      LEFT JOIN LATERAL license.customer_facts($1, $2, l.customer_id) AS c ON true
      LEFT JOIN LATERAL license.tier_facts($1, $2, l.product_id) AS t ON t.tier_id COLLATE "C" = l.tier_id
      LEFT JOIN LATERAL license.tier_facts($1, $2, l.product_id) AS r ON r.slug COLLATE "C" = $4
"""
LOAD_BY_KEY: Final = (
    _FACTS + " FROM (SELECT) AS one LEFT JOIN LATERAL license.license_key_facts($1, $2, $3) AS k ON true" + _JOINS
)
LOAD_BY_ID: Final = _FACTS + " FROM (SELECT $3::text AS license_id, NULL::timestamptz AS expires_at) AS k" + _JOINS


@dataclass(frozen=True, slots=True)
class LicenseFacts:
    """What a decision needs to know of one license. `key_expires_at` is the end of the key that found it, if it has one."""

    license_id: str
    product_id: str
    policy_id: str
    status: str
    starts_at: datetime | None
    expires_at: datetime | None
    is_trial: bool
    key_expires_at: datetime | None
    tier_id: str | None
    tier: str | None
    """The slug of the tier."""
    tier_position: int | None
    required_position: int | None
    """The position of the tier that was asked for; None where the product has no such tier, or none was."""
    customer_banned: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """The facts, or None where there is no such license, and the record's time at which they held."""

    at: datetime
    facts: LicenseFacts | None


class LicenseFactsReader:
    """Loads facts as `lictor_facts`; an unknown, a foreign and a deleted license all look the same."""

    def __init__(self, facts: Database) -> None:
        self._facts = facts

    async def by_key(self, tenant: Tenant, key_hashes: list[bytes], required_tier: str) -> Loaded:
        return await self._load(LOAD_BY_KEY, tenant, key_hashes, required_tier)

    async def by_id(self, tenant: Tenant, license_id: str, required_tier: str) -> Loaded:
        return await self._load(LOAD_BY_ID, tenant, license_id, required_tier)

    async def _load(self, statement: str, tenant: Tenant, root: list[bytes] | str, required_tier: str) -> Loaded:
        rows = await self._facts.load(statement, tenant.account_id, tenant.mode.value, root, required_tier)
        # Two live peppers can match one key each while a key is rotated; a row without a license is a deleted one's.
        row = next((row for row in rows if _leads_to_a_license(row)), None)
        if row is None:
            return Loaded(rows[0]["at"], None)
        facts = LicenseFacts(
            row["license_id"], row["product_id"], row["policy_id"], row["status"], row["starts_at"], row["expires_at"],
            row["is_trial"], row["key_expires_at"], row["tier_id"], row["tier"], row["tier_position"],
            row["required_position"], row["customer_banned"],
        )  # fmt: skip
        return Loaded(row["at"], facts)


def _leads_to_a_license(row: asyncpg.Record) -> bool:
    """Whether it is no deleted one's, and its key has not ended between the statement's beginning and `at`."""
    return row["license_id"] is not None and (row["key_expires_at"] is None or row["key_expires_at"] > row["at"])
