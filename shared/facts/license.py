"""The facts of a validation: one load, one statement, one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from shared.db.pool import Database
from shared.tenancy import Tenant

_FACTS: Final = """
    SELECT clock_timestamp() AS at, l.license_id, l.product_id, d.code AS product_code, l.policy_id, l.status, l.starts_at,
           l.expires_at, l.expiry_anchored_at IS NOT NULL AS anchored,
           coalesce(l.check_in_from, l.starts_at, l.created_at) AS check_in_from, l.max_uses_override,
           coalesce(u.uses, 0) AS uses, p.is_trial, p.expiration_strategy, p.grace_period, p.expiration_basis, p.max_uses,
           p.uses_counted_by, p.overridable, p.require_check_in, p.check_in_interval, p.check_in_count, p.check_in_since,
           p.require_product_scope, p.require_policy_scope, p.require_user_scope, k.expires_at AS key_expires_at,
           l.tier_id, t.slug AS tier, t.position AS tier_position, r.position AS required_position,
           l.customer_id, c.subject_ref AS customer_subject_ref, c.email_hash AS customer_email_hash,
           coalesce(c.banned, false) AS customer_banned
"""
# The functions' own columns have the database's collation, with which no index on the tables' would serve. No tier
# has the empty slug of a caller that asks for none. Uses are no fact: they are counted at the record.
_JOINS: Final = """
      LEFT JOIN LATERAL license.license_facts($1, $2, k.license_id) AS l ON true
      LEFT JOIN LATERAL license.license_uses($1, $2, l.license_id) AS u ON true
      LEFT JOIN LATERAL license.product_facts($1, $2, l.product_id) AS d ON true
      LEFT JOIN LATERAL license.policy_facts($1, $2, l.policy_id) AS p ON true
      LEFT JOIN LATERAL license.customer_facts($1, $2, l.customer_id) AS c ON true
      LEFT JOIN LATERAL license.tier_facts($1, $2, l.product_id) AS t ON t.tier_id COLLATE "C" = l.tier_id
      LEFT JOIN LATERAL license.tier_facts($1, $2, l.product_id) AS r ON r.slug COLLATE "C" = $4
"""
_ITEMS: Final = """
      FROM unnest($3::int[], $4::bytea[], $5::text[], $6::text[]) AS i (n, key_hash, license_id, tier)
      LEFT JOIN LATERAL (
               SELECT f.license_id, f.expires_at FROM license.license_key_facts($1, $2, ARRAY[i.key_hash]) AS f
                UNION ALL SELECT i.license_id, NULL WHERE i.license_id IS NOT NULL
           ) AS k ON true
"""
LOAD_BY_KEY: Final = (
    _FACTS + " FROM (SELECT) AS one LEFT JOIN LATERAL license.license_key_facts($1, $2, $3) AS k ON true" + _JOINS
)
LOAD_BY_ID: Final = _FACTS + " FROM (SELECT $3::text AS license_id, NULL::timestamptz AS expires_at) AS k" + _JOINS
# One time for all of them, and for each item the rows of the key hashes that it may have, or of its id.
LOAD_BATCH: Final = (
    _FACTS.replace("clock_timestamp()", "i.n, (SELECT clock_timestamp())") + _ITEMS + _JOINS.replace("$4", "i.tier")
)


@dataclass(frozen=True, slots=True)
class LicenseFacts:
    """What a decision needs to know of one license, by the columns of the load."""

    license_id: str
    product_id: str
    product_code: str
    policy_id: str
    status: str
    starts_at: datetime | None
    expires_at: datetime | None
    anchored: bool
    """Whether its duration counts, or waits for a first validation or use."""
    check_in_from: datetime
    max_uses_override: int | None
    uses: int
    is_trial: bool
    expiration_strategy: str
    grace_period: timedelta
    expiration_basis: str
    max_uses: int | None
    uses_counted_by: str
    overridable: Sequence[str]
    require_check_in: bool
    check_in_interval: str | None
    check_in_count: int
    check_in_since: datetime | None
    require_product_scope: bool
    require_policy_scope: bool
    require_user_scope: bool
    key_expires_at: datetime | None
    """The end of the key that found the license, if it has one."""
    tier_id: str | None
    tier: str | None
    """The slug of the tier."""
    tier_position: int | None
    required_position: int | None
    """The position of the tier that was asked for; None where the product has no such tier, or none was."""
    customer_id: str | None
    customer_subject_ref: str | None
    customer_email_hash: bytes | None
    customer_banned: bool


_COLUMNS: Final = tuple(field.name for field in fields(LicenseFacts))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The facts, or None where there is no such license, and the record's time at which they held."""

    at: datetime
    facts: LicenseFacts | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """One license of a batch: by the hashes that its key may have, or by its id. `required_tier` is a slug or empty."""

    key_hashes: Sequence[bytes]
    license_id: str | None
    required_tier: str


class LicenseFactsReader:
    """Loads facts as `lictor_facts`; an unknown, a foreign and a deleted license all look the same."""

    def __init__(self, facts: Database) -> None:
        self._facts = facts

    async def by_key(self, tenant: Tenant, key_hashes: list[bytes], required_tier: str) -> Loaded:
        return await self._load(LOAD_BY_KEY, tenant, key_hashes, required_tier)

    async def by_id(self, tenant: Tenant, license_id: str, required_tier: str) -> Loaded:
        return await self._load(LOAD_BY_ID, tenant, license_id, required_tier)

    async def batch(self, tenant: Tenant, wanted: Sequence[Wanted]) -> list[Loaded]:
        """Each in its place, all at one state of the record and one time."""
        items = [
            (n, key_hash, license_id, one.required_tier)
            for n, one in enumerate(wanted)
            for key_hash, license_id in (
                [(None, one.license_id)] if one.license_id else [(h, None) for h in one.key_hashes]
            )
        ]
        rows = await self._facts.load(
            LOAD_BATCH, tenant.account_id, tenant.mode.value, *(list(column) for column in zip(*items, strict=True))
        )
        found: dict[int, asyncpg.Record] = {row["n"]: row for row in rows if _leads_to_a_license(row)}
        at = rows[0]["at"]
        return [Loaded(at, _facts(found[n]) if n in found else None) for n in range(len(wanted))]

    async def _load(self, statement: str, tenant: Tenant, root: list[bytes] | str, required_tier: str) -> Loaded:
        rows = await self._facts.load(statement, tenant.account_id, tenant.mode.value, root, required_tier)
        # Two live peppers can match one key each while a key is rotated; a row without a license is a deleted one's.
        row = next((row for row in rows if _leads_to_a_license(row)), None)
        if row is None:
            return Loaded(rows[0]["at"], None)
        return Loaded(row["at"], _facts(row))


def _facts(row: asyncpg.Record) -> LicenseFacts:
    return LicenseFacts(*(row[column] for column in _COLUMNS))


def _leads_to_a_license(row: asyncpg.Record) -> bool:
    """Whether it is no deleted one's, and its key has not ended between the statement's beginning and `at`."""
    return row["license_id"] is not None and (row["key_expires_at"] is None or row["key_expires_at"] > row["at"])
