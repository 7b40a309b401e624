"""The loads of licenses' facts: one statement each, and so one state of the record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from sys import intern
from typing import Final

import asyncpg

from shared.db.pool import Database
from shared.facts.customers import CustomerValue
from shared.facts.license import (
    KEY_BYTES,
    LICENSE_BYTES,
    SHARED_BYTES,
    KeyValue,
    LicenseValue,
    PolicyValue,
    ProductValue,
    TiersValue,
    Wanted,
    license_key,
    tenant_prefix,
)
from shared.facts.machine_loads import (
    FOUND_COLUMNS,
    FOUND_JOINS,
    SEATS_COLUMNS,
    SEATS_COLUMNS_OF_ALL,
    SEATS_JOIN,
    SEATS_JOIN_OF_ALL,
    TERMS_COLUMNS,
    found_of,
    overrides_of,
    seats_of,
    terms_of,
)
from shared.facts.machines import MachineAsked
from shared.facts.stamped import STAMP, stamp_of
from shared.freshness.memory import Fact
from shared.freshness.reader import Load
from shared.tenancy import Tenant

_FACTS: Final = f"""
    SELECT {STAMP}, clock_timestamp() AS at, k.key_hash, k.expires_at AS key_expires_at,
           l.license_id, l.product_id, l.policy_id, l.customer_id, l.tier_id, l.status, l.starts_at,
           l.expires_at, l.expiry_anchored_at IS NOT NULL AS anchored,
           coalesce(l.check_in_from, l.starts_at, l.created_at) AS check_in_from, l.max_uses_override,
           coalesce(u.uses, 0) AS uses, p.is_trial, p.expiration_strategy, p.grace_period, p.expiration_basis, p.max_uses,
           p.uses_counted_by, p.overridable, p.require_check_in, p.check_in_interval, p.check_in_count, p.check_in_since,
           p.require_product_scope, p.require_policy_scope, p.require_user_scope, p.authentication, p.stale_ok_for,
           p.first_duration, {TERMS_COLUMNS}, {SEATS_COLUMNS},
           d.code AS product_code,
           c.subject_ref AS customer_subject_ref, c.email_hash AS customer_email_hash, c.banned AS customer_banned,
           (SELECT json_agg(json_build_array(t.tier_id, t.slug, t.position))::text
              FROM license.tier_facts($1, $2, l.product_id) AS t) AS tiers
"""  # noqa: S608 - put together from constants
# The functions' own columns have the database's collation, with which no index on the tables' would serve. Uses are no
# fact: they are counted at the record.
_JOINS: Final = """
      LEFT JOIN LATERAL license.license_facts($1, $2, k.license_id) AS l ON true
      LEFT JOIN LATERAL license.license_uses($1, $2, l.license_id) AS u ON true
      LEFT JOIN LATERAL license.product_facts($1, $2, l.product_id) AS d ON true
      LEFT JOIN LATERAL license.policy_facts($1, $2, l.policy_id) AS p ON true
      LEFT JOIN LATERAL license.customer_facts($1, $2, l.customer_id) AS c ON true
"""
_ITEMS: Final = """
      FROM unnest($3::int[], $4::bytea[], $5::text[]) AS i (n, key_hash, license_id)
      LEFT JOIN LATERAL (
               SELECT f.license_id, f.expires_at, f.key_hash
                 FROM license.license_key_facts($1, $2, ARRAY[i.key_hash]) AS f
                UNION ALL SELECT i.license_id, NULL, NULL WHERE i.license_id IS NOT NULL
           ) AS k ON true
"""
_MACHINES_ASKED: Final = "$5::text[], $6::text[], $7::text[]) AS i (n, key_hash, license_id, machine_id, hashes)"
LOAD_BY_KEY: Final = (
    _FACTS
    + " FROM (SELECT) AS one LEFT JOIN LATERAL license.license_key_facts($1, $2, $3) AS k ON true"
    + _JOINS
    + SEATS_JOIN
)
LOAD_BY_ID: Final = (
    _FACTS
    + " FROM (SELECT $3::text AS license_id, NULL::timestamptz AS expires_at, NULL::bytea AS key_hash) AS k"
    + _JOINS
    + SEATS_JOIN
)
# One time for all of them, and for each item the rows of the key hashes that it may have, or of its id.
_BATCH_FACTS: Final = _FACTS.replace("clock_timestamp()", "i.n, (SELECT clock_timestamp())")
LOAD_BATCH: Final = _BATCH_FACTS + _ITEMS + _JOINS + SEATS_JOIN
# The same with the machines that are asked for: each item has the id of one and the hashes of fingerprints, either may be empty.
LOAD_MACHINES: Final = (
    _BATCH_FACTS.replace(SEATS_COLUMNS, f"{SEATS_COLUMNS_OF_ALL}, {FOUND_COLUMNS}")
    + _ITEMS.replace("$5::text[]) AS i (n, key_hash, license_id)", _MACHINES_ASKED)
    + _JOINS
    + SEATS_JOIN_OF_ALL
    + FOUND_JOINS
)


_COLUMNS_OF_THE_POLICY: Final = tuple(one.name for one in fields(PolicyValue) if one.name != "machines")


async def load_one(db: Database, tenant: Tenant, wanted: Wanted) -> Load:
    """One license, as `lictor_facts`; an unknown, a foreign and a deleted license all look the same."""
    if wanted.machine is not None:
        return await load_many(db, tenant, [wanted])
    statement, root = LOAD_BY_KEY, wanted.key_hashes
    if wanted.license_id is not None:
        statement, root = LOAD_BY_ID, wanted.license_id
    rows = await db.load(statement, tenant.account_id, tenant.mode.value, root)
    return _load(tenant, [(wanted, rows)])


async def load_many(db: Database, tenant: Tenant, wanted: Sequence[Wanted]) -> Load:
    """All at one state of the record and one time."""
    return _load(tenant, await _found_many(db, tenant, wanted))


async def load_each(db: Database, tenant: Tenant, wanted: Sequence[Wanted]) -> Sequence[Load]:
    """The same by one statement for several who ask for one each: to each its own."""
    return [_load(tenant, [found]) for found in await _found_many(db, tenant, wanted)]


async def _found_many(
    db: Database, tenant: Tenant, wanted: Sequence[Wanted]
) -> Sequence[tuple[Wanted, Sequence[asyncpg.Record]]]:
    items = [(n, *of) for n, one in enumerate(wanted) for of in _items(one)]
    statement, width = (LOAD_BATCH, 3) if all(one.machine is None for one in wanted) else (LOAD_MACHINES, 5)
    columns = (list(column) for column in list(zip(*items, strict=True))[:width])
    rows = await db.load(statement, tenant.account_id, tenant.mode.value, *columns)
    return list(zip(wanted, _by_item(rows, len(wanted)), strict=True))


def _items(wanted: Wanted) -> Iterator[tuple[bytes | None, str | None, str, str]]:
    """What a batch is told of one license: a hash of its key or its id, the id of a machine, and hashes of fingerprints."""
    machine = wanted.machine or _NO_MACHINE
    asked = (machine.machine_id, ",".join(hashed.hex() for hashed in machine.hashes))
    if wanted.license_id is not None:
        yield (None, wanted.license_id, *asked)
        return
    for key_hash in wanted.key_hashes:
        yield (key_hash, None, *asked)


_NO_MACHINE: Final = MachineAsked()


def _by_item(rows: Sequence[asyncpg.Record], items: int) -> list[list[asyncpg.Record]]:
    found: list[list[asyncpg.Record]] = [[] for _ in range(items)]
    for row in rows:
        n: int = row["n"]
        found[n].append(row)
    return found


def _load(tenant: Tenant, found: Sequence[tuple[Wanted, Sequence[asyncpg.Record]]]) -> Load:
    first = found[0][1][0]
    facts = {fact.key: fact for one, rows in found for fact in _facts_of(tenant, one, rows)}
    counts = {row["license_id"]: row["uses"] for _, rows in found for row in rows if row["license_id"] is not None}
    return Load(stamp_of(first), first["at"], facts, counts)


def _facts_of(tenant: Tenant, wanted: Wanted, rows: Sequence[asyncpg.Record]) -> Iterator[Fact]:
    """The facts of all that the rows tell of, and of what was asked for and is not there."""
    prefix = tenant_prefix(tenant)
    there = [row for row in rows if row["license_id"] is not None]
    hashes = {row["key_hash"] for row in there}
    if wanted.license_id is not None and not there:
        yield Fact(f"license:{prefix}{wanted.license_id}", None, 0)
    for key_hash in wanted.key_hashes:
        if key_hash not in hashes:
            yield Fact(license_key(prefix, key_hash), None, 0)
    for row in there:
        if row["key_hash"] is not None:
            key = KeyValue(intern(row["license_id"]), row["key_expires_at"])
            yield Fact(license_key(prefix, row["key_hash"]), key, KEY_BYTES)
        yield Fact(f"license:{prefix}{row['license_id']}", _license(row), LICENSE_BYTES)
        yield from seats_of(prefix, row)
        if wanted.machine is not None:
            yield from found_of(prefix, wanted.machine, row)
        terms = {name: row[name] for name in _COLUMNS_OF_THE_POLICY}
        policy = PolicyValue(**terms, machines=terms_of(row))
        yield Fact(f"policy:{prefix}{row['policy_id']}", policy, SHARED_BYTES)
        yield Fact(f"product:{prefix}{row['product_id']}", ProductValue(row["product_code"]), SHARED_BYTES)
        yield Fact(f"tier:{prefix}{row['product_id']}", _tiers(row), SHARED_BYTES)
        if row["customer_id"] is not None:
            customer = CustomerValue(row["customer_subject_ref"], row["customer_email_hash"], row["customer_banned"])
            yield Fact(f"customer:{prefix}{row['customer_id']}", customer, SHARED_BYTES)


def _license(row: asyncpg.Record) -> LicenseValue:
    """Ids that many licenses have in common are kept once."""
    return LicenseValue(
        license_id=intern(row["license_id"]),
        product_id=intern(row["product_id"]),
        policy_id=intern(row["policy_id"]),
        customer_id=row["customer_id"],
        tier_id=None if row["tier_id"] is None else intern(row["tier_id"]),
        status=intern(row["status"]),
        starts_at=row["starts_at"],
        expires_at=row["expires_at"],
        anchored=row["anchored"],
        check_in_from=row["check_in_from"],
        max_uses_override=row["max_uses_override"],
        overrides=overrides_of(row),
    )


def _tiers(row: asyncpg.Record) -> TiersValue:
    if row["tiers"] is None:
        return TiersValue(())
    return TiersValue(tuple((tier_id, slug, position) for tier_id, slug, position in json.loads(row["tiers"])))
