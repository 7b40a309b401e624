"""What tests of the record need: databases of their own, connections as each role, a row of every table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg

from shared.db.migrate import migrate
from shared.db.roles import SCHEMAS
from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import Tenant

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Scratch:
    """A database of one test module. Its roles are those of the whole server."""

    postgres: EmbeddedPostgres
    name: str

    def dsn(self, user: str = "") -> str:
        return self.postgres.dsn(user).replace("/lictor?", f"/{self.name}?")

    @property
    def admin_dsn(self) -> str:
        return self.dsn("postgres")

    @asynccontextmanager
    async def connect(self, user: str = "postgres") -> AsyncGenerator[asyncpg.Connection]:
        """A connection as a role; as the superuser when none is named."""
        conn = await asyncpg.connect(self.dsn(user))
        try:
            yield conn
        finally:
            await conn.close()


@dataclass(frozen=True)
class OwnRecord:
    """A database of its own, addressed as a suite addresses the one that all share."""

    scratch: Scratch

    def dsn(self, user: str = "") -> str:
        return self.scratch.dsn(user)

    def admin_dsn(self) -> str:
        return self.scratch.admin_dsn


@asynccontextmanager
async def scratch(postgres: EmbeddedPostgres, *, migrated: bool = True) -> AsyncGenerator[Scratch]:
    """A new database, dropped in the end."""
    made = Scratch(postgres, f"scratch_{uuid4().hex}")
    admin = await asyncpg.connect(postgres.admin_dsn())
    try:
        await admin.execute(f"CREATE DATABASE {made.name}")
        if migrated:
            await migrate(made.admin_dsn)
        yield made
        await admin.execute(f"DROP DATABASE {made.name} WITH (FORCE)")
    finally:
        await admin.close()


async def tables(conn: asyncpg.Connection) -> list[str]:
    """Every table of our schemas, by the catalog."""
    rows = await conn.fetch(
        "SELECT n.nspname || '.' || c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p') ORDER BY 1",
        list(SCHEMAS),
    )
    return [row["name"] for row in rows]


async def columns(conn: asyncpg.Connection, table: str) -> list[str]:
    rows = await conn.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
        table,
    )
    return [row["attname"] for row in rows]


async def tenant_tables(conn: asyncpg.Connection) -> list[str]:
    """Every table of our schemas with a column account_id."""
    return [table for table in await tables(conn) if "account_id" in await columns(conn, table)]


async def insert(conn: asyncpg.Connection, table: str, row: Row, *, more: str = "") -> None:
    """Inserts a row given as JSON values. One that a trigger makes beside its parent stays as that made it."""
    more = more or ("ON CONFLICT DO NOTHING" if table == "license.boundary" else "")
    names = ", ".join(row)
    await conn.execute(
        f"INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, $1) {more}",
        json.dumps(dict(row)),
    )


async def enter(conn: asyncpg.Connection, tenant: Tenant) -> None:
    """What a service does at the beginning of each transaction."""
    await conn.execute(
        "SELECT set_config('lictor.account_id', $1, true), set_config('lictor.mode', $2, true)",
        tenant.account_id,
        tenant.mode.value,
    )


async def digests(conn: asyncpg.Connection, skip: Iterable[str] = ()) -> dict[str, str]:
    """For every table something that changes with each write of any row; processes freshen theirs whatever is called.

    It is made of where the rows' versions are and which transactions wrote them: to read what is in them takes much longer.
    """
    names = sorted(set(await tables(conn)) - {"record.process", "record.tail_base", *skip})
    every = " UNION ALL ".join(
        f"SELECT '{name}' AS name, count(*) || ' ' || "
        f"coalesce(sum(hashtidextended(ctid, tableoid::int8 << 32 | xmin::text::int8)), 0) AS digest FROM {name}"
        for name in names
    )
    return {row["name"]: row["digest"] for row in await conn.fetch(every)}


async def where_found(conn: asyncpg.Connection, *secrets: str) -> list[str]:
    """The tables that have one of `secrets` in some column of some row: as text in any case, or as bytes."""
    sought = [form for secret in secrets for form in (secret.lower(), secret.encode().hex())]
    found: list[str] = []
    for table in await tables(conn):
        is_there = await conn.fetchval(
            f"SELECT EXISTS (SELECT 1 FROM (SELECT lower(t::text) AS row FROM {table} AS t OFFSET 0) AS r, "
            "unnest($1::text[]) AS s WHERE strpos(r.row, s) > 0)",
            sought,
        )
        found += [table] if is_there else []
    return found


def sample(tenant: Tenant, n: int) -> dict[str, dict[str, Any]]:
    """A row of every table, parents first, valid together.

    Two samples differ in every column when their tenants differ in account and mode, and their numbers by an odd number.
    """
    tag = hashlib.sha256(f"{tenant.account_id}|{tenant.mode}|{n}".encode()).hexdigest()
    short, even = tag[:32], n % 2 == 0
    time = datetime(2031, 1, 1, tzinfo=UTC) + timedelta(days=n)
    at = {"created_at": time.isoformat(), "updated_at": (time + timedelta(hours=1)).isoformat()}
    own = {"account_id": tenant.account_id, "mode": tenant.mode.value}
    end = (time + timedelta(days=500)).isoformat()
    status, name, data = "active" if even else "suspended", f"name {n}", {"n": str(n)}
    product_id, tier_id, policy_id, license_id, customer_id = (
        f"{p}_{short}" for p in ("prod", "tier", "pol", "lic", "cus")
    )
    event_id, key_id, machine_id = f"evt_{short}", f"key_{short}", f"mach_{short}"
    return {
        "license.account": {
            "account_id": tenant.account_id, "external_id": f"acc {tag}", "display_name": name, "status": status,
            "revision": n, "limits": {"management_calls_per_second": n}, **at,
        },
        "license.operator_key": {
            "operator_key_id": f"opk_{short}", "key_hash": f"\\x01{tag}", "display_name": name, "hint": f"h{n}",
            "created_at": at["created_at"], "revoked_at": at["updated_at"],
        },
        "license.api_key": {
            **own, "api_key_id": key_id, "key_hash": f"\\x02{tag}", "external_id": f"key {n}", "display_name": name,
            "scopes": ["keys:read"] if even else ["keys:write"], "hint": f"h{n}", "expires_at": at["updated_at"],
            "revoked_at": at["updated_at"], "replaced_by_id": f"key {n}", "revision": n, **at,
            "kind": "SECRET" if even else "PUBLISHABLE",
        },
        "license.workload_binding": {
            **own, "workload_binding_id": f"wlb_{short}", "external_id": f"wlb {tag}", "display_name": name,
            "trust_domain": f"{short}.test", "path": f"/w/{n}", "scopes": ["keys:read"] if even else ["keys:write"],
            "revision": n, **at,
        },
        "license.product": {
            **own, "product_id": product_id, "external_id": f"prod {n}", "code": tag[:16].upper(), "slug": short,
            "display_name": name, "url": f"https://{n}.test",
            "key_storage": "SEALED" if even else "HASH_ONLY", "labels": data, "metadata": data, "revision": n, **at,
        },
        "license.tier": {
            **own, "tier_id": tier_id, "external_id": f"tier {n}", "product_id": product_id, "slug": f"t{n}",
            "display_name": name, "position": n, "labels": data, "metadata": data, "revision": n, **at,
        },
        "license.key_set": {
            **own, "product_id": product_id, "key_set_id": f"kset_{short}", "revocation_epoch": n,
            "created_at": at["created_at"],
        },
        "license.signing_key": {
            **own, "signing_key_id": f"kid_{short}", "product_id": product_id, "purpose": "FILE" if even else "TOKEN",
            "alg": "ED25519" if even else "ES256", "status": "ACTIVE" if even else "PENDING",
            "public_jwk": {"kty": "OKP", "crv": "Ed25519", "x": f"x{n}"}, "kek_version": n + 1, "nonce": f"\\x{tag[:24]}",
            "ciphertext": f"\\x{tag}", "activates_at": at["created_at"], "retired_at": end, "revoked_at": end,
            "revision": n, **at,
        },
        "license.policy": {
            **own, "policy_id": policy_id, "external_id": f"pol {n}", "product_id": product_id, "display_name": name,
            "template": f"t{n}", "duration": f"{n + 1} days", "is_trial": even, "max_machines": n + 1, "floating": even,
            "require_fingerprint": even, "require_heartbeat": even, "heartbeat_interval": f"{n + 1} min",
            "offline_allowed": even, "offline_max_ttl": f"{n + 1} days", "labels": data, "metadata": data, "revision": n,
            "expiration_strategy": "REVOKE" if even else "ALLOW_ACCESS", "grace_period": f"{n + 1} days",
            "expiration_basis": "FROM_CREATION" if even else "FROM_FIRST_USE",
            "renewal_basis": "FROM_EXPIRY" if even else "FROM_NOW",
            "transfer_strategy": "KEEP_EXPIRY" if even else "RESET_EXPIRY", "trial_duration": f"{n + 1} days",
            "max_uses": n + 1, "uses_counted_by": "EXPLICIT" if even else "VALIDATION",
            "overage_strategy": "ALLOW_2X" if even else "ALLOW_1_5X", "require_check_in": even,
            "check_in_interval": "DAY" if even else "YEAR", "check_in_count": n + 1, "check_in_since": at["created_at"],
            "require_product_scope": even, "require_policy_scope": even, "require_user_scope": even, "protected": even,
            "authentication": "MIXED" if even else "NONE", "overridable": ["MAX_USES"] if even else ["MAX_MACHINES"],
            "stale_ok_for": f"{n + 1} min", "strict": even, "max_users": n + 1, "max_cores": n + 1, "max_memory_bytes": n + 1,
            "max_disk_bytes": n + 1, "max_processes": n + 1,
            "machine_uniqueness": "UNIQUE_PER_POLICY" if even else "UNIQUE_PER_PRODUCT",
            "machine_matching": "MATCH_TWO" if even else "MATCH_MOST",
            "component_uniqueness": "UNIQUE_PER_POLICY" if even else "UNIQUE_PER_PRODUCT",
            "component_matching": "MATCH_TWO" if even else "MATCH_MOST",
            "machine_leasing": "PER_LICENSE" if even else "PER_USER", "process_leasing": "PER_LICENSE" if even else "PER_USER",
            "seat_acquire": "QUEUE" if even else "EVICT_OLDEST", "require_machine_scope": even,
            "require_components_scope": even, "heartbeat_basis": "FROM_CREATION" if even else "FROM_FIRST_PING",
            "heartbeat_cull": "KEEP_DEAD" if even else "DEACTIVATE_DEAD",
            "heartbeat_resurrection": "ALWAYS_REVIVE" if even else "NO_REVIVE", "max_transfers": n,
            "transfer_period": f"{n + 1} days", "allow_machine_transfer": even, **at,
        },
        "license.stale_span": {**own, "stale_ok_for": f"{n + 1} min", "ends_at": end},
        "license.customer": {
            **own, "customer_id": customer_id, "email": f"{n}@example.com", "subject_ref": f"s{n}", "display_name": name,
            "banned_at": None if even else at["updated_at"], "ban_reason": f"r{n}", "labels": data, "metadata": data,
            "revision": n, **at,
        },
        "license.customer_session": {
            **own, "customer_session_id": f"cses_{short}", "customer_id": customer_id, "token_hash": f"\\x04{tag}",
            "created_at": at["created_at"], "expires_at": end,
        },
        "license.license": {
            **own, "license_id": license_id, "external_id": f"lic {n}", "product_id": product_id, "policy_id": policy_id,
            "tier_id": tier_id, "customer_id": customer_id, "display_name": name, "status": status, "status_reason": f"r{n}",
            "key_hint": f"h{n}", "starts_at": at["created_at"], "expires_at": end, "labels": data,
            "metadata": data, "revision": n, "expiry_anchored_at": at["created_at"], "check_in_from": at["created_at"],
            "last_check_in_at": at["updated_at"], "max_machines_override": n + 1, "max_uses_override": n + 1,
            "offline_max_ttl_override": f"{n + 1} days", "max_users_override": n + 1, "max_cores_override": n + 1,
            "max_memory_bytes_override": n + 1, "max_disk_bytes_override": n + 1, "max_processes_override": n + 1, **at,
        },
        "license.license_usage": {
            **own, "license_id": license_id, "uses": n, "first_validated_at": at["created_at"],
            "last_validated_at": at["updated_at"],
        },
        "license.license_key": {
            **own, "key_hash": f"\\x03{tag}", "license_id": license_id, "kek_version": n + 1, "nonce": f"\\x{tag[:24]}",
            "ciphertext": f"\\x{tag}", "expires_at": end,
        },
        "license.license_file": {
            **own, "license_id": license_id, "seq": n, "license_file_id": f"file_{short}", "signing_key_id": f"kid_{short}",
            "issued_at": at["created_at"], "not_before": at["created_at"], "expires_at": end, "encrypted": even,
            "bound": even,
        },
        "license.boundary": {
            **own, "license_id": license_id, "due_at": end, "expiring_soon_at": end, "grace_started_at": end, "expired_at": end,
            "check_in_soon_at": end, "check_in_overdue_at": end,
        },
        "license.boundary_recheck": {**own, "policy_id": policy_id, "after_license_id": license_id},
        "machine.seat": {
            **own, "license_id": license_id, "machines": n + 1, "users": n + 1, "cores": 2 * n + 1, "memory_bytes": 2 * n + 1,
            "disk_bytes": 2 * n + 1, "processes": n, "first_activated_at": at["created_at"], "lease_epochs": n,
        },
        "machine.machine": {
            **own, "machine_id": machine_id, "external_id": f"mach {n}", "license_id": license_id, "product_id": product_id,
            "policy_id": policy_id, "user_id": customer_id, "identity_kind": "FINGERPRINT" if even else "WORKLOAD",
            "identity_hash": f"\\x05{tag}", "uniqueness_scope": license_id, "generation": n + 1, "display_name": name,
            "hostname": f"h{n}", "platform": "LINUX" if even else "MACOS", "ip": f"10.0.0.{n}", "cores": n + 1,
            "memory_bytes": n + 1, "disk_bytes": n + 1, "heartbeat_status": "ALIVE" if even else "DEAD",
            "heartbeat_from": at["created_at"], "died_at": at["updated_at"], "offline_until": end, "lease_epoch": n + 1,
            "activated_at": at["created_at"], "deactivated_at": None if even else at["updated_at"],
            "deactivation_reason": None if even else "ADMIN", "labels": data, "metadata": data, "revision": n,
            "updated_at": at["updated_at"],
        },
        "machine.machine_file": {
            **own, "machine_id": machine_id, "seq": n + 1, "machine_file_id": f"file_{short}", "signing_key_id": f"kid_{short}",
            "issued_at": at["created_at"], "not_before": at["created_at"], "expires_at": end, "encrypted": even,
        },
        "machine.fingerprint": {
            **own, "machine_id": machine_id, "name": f"f{n}", "license_id": license_id, "uniqueness_scope": license_id,
            "fingerprint_hash": f"\\x05{tag}",
        },
        "machine.component": {
            **own, "machine_id": machine_id, "name": f"c{n}", "uniqueness_scope": machine_id,
            "fingerprint_hash": f"\\x06{tag}",
        },
        "machine.beat": {
            **own, "machine_id": machine_id, "last_heartbeat_at": at["updated_at"], "lease_expires_at": end,
            "lease_holder": f"holder {n}", "due_at": end,
        },
        "machine.process": {
            **own, "machine_id": machine_id, "process_id": f"mproc_{short}", "name": f"p{n}", "license_id": license_id,
            "user_id": customer_id, "started_at": at["created_at"], "last_heartbeat_at": at["updated_at"], "due_at": end,
        },
        "machine.seat_wait": {
            **own, "ticket_id": f"wait_{short}", "license_id": license_id, "place": n, "identity_hash": f"\\x05{tag}",
            "user_id": customer_id, "lapses_at": end,
        },
        "record.event": {
            **own, "event_id": event_id, "type": "license.created", "subject": license_id, "subject_seq": n,
            "occurred_at": at["created_at"], "schema_version": n, "actor": key_id, "source": "api", "reason": f"r{n}",
            "data": data,
        },
        "record.subject": {**own, "subject": license_id, "seq": n},
        "record.outbox": {**own, "event_id": event_id, "created_at": at["created_at"]},
        "record.request": {
            **own, "method": f"/m/{n}", "request_id_hash": f"\\x{tag}", "body_hash": f"\\x{tag}", "result": f"\\x{tag}",
            "sealed": even, "created_at": at["created_at"],
        },
    }  # fmt: skip
