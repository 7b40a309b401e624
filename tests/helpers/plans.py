"""A record with many rows in every table, and the plans of statements on it: which tables they read, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import asyncpg

from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import Mode, Tenant
from tests.helpers.record import Scratch, insert, sample, scratch

ROWS = 20_000
LARGE = Tenant("acc_large", Mode.LIVE)
INDEX_SCANS = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Bitmap Index Scan"}
HARMLESS = {
    "Nested Loop",
    "Result",
    "Limit",
    "Subquery Scan",
    "LockRows",
    "BitmapOr",
    "Incremental Sort",
    "Memoize",
    "Append",
    "Function Scan",
    "Aggregate",
}
"""Plan nodes that read nothing by themselves."""

ALONE = ("license.account", "license.operator_key", "license.product", "license.policy")
"""Tables that are given rows of many accounts, as an operator has them; the others hold those of one large account."""

NUMBERED = {
    "license.account": {"account_id": "'acc_' || n", "external_id": "'x' || n"},
    "license.operator_key": {"operator_key_id": "'opk_' || n", "key_hash": "'\\x01'::bytea || sha256(n::text::bytea)"},
    "license.api_key": {
        "api_key_id": "'key_' || n", "external_id": "NULL", "key_hash": "'\\x02'::bytea || sha256(n::text::bytea)",
    },
    "license.workload_binding": {
        "workload_binding_id": "'wlb_' || n", "external_id": "'x' || n", "path": "'/w/x' || n",
    },
    "license.product": {"product_id": "'prod_' || n", "external_id": "'x' || n", "code": "'P' || n", "slug": "'p' || n"},
    "license.policy": {
        "policy_id": "'pol_' || n", "external_id": "'x' || n", "product_id": "'prod_' || n % 5000",
        "stale_ok_for": "CASE WHEN n % 100 = 0 THEN interval '1 h' ELSE interval '0' END",
    },
    "license.stale_span": {"account_id": "'acc_' || n"},
    "license.key_set": {"product_id": "'prod_' || n", "key_set_id": "'kset_' || n"},
    "license.signing_key": {"signing_key_id": "'kid_' || n", "product_id": "'prod_' || n"},
    "license.tier": {
        "tier_id": "'tier_' || n", "external_id": "'x' || n", "product_id": "'prod_' || n % 5000", "slug": "'t' || n",
    },
    "license.customer": {"customer_id": "'cus_' || n", "email": "n || '@x.test'", "subject_ref": "'s' || n"},
    "license.customer_session": {
        "customer_session_id": "'cses_' || n", "customer_id": "'cus_' || n % 5000",
        "token_hash": "'\\x03'::bytea || sha256(n::text::bytea)", "expires_at": "now() + (n - 10000) * interval '1 s'",
    },
    "license.license": {
        "license_id": "'lic_' || n", "external_id": "'x' || n", "policy_id": "'pol_' || n % 5000",
        "product_id": "'prod_' || n % 5000", "customer_id": "'cus_' || n % 5000", "tier_id": "'tier_' || n % 5000",
    },
    "license.license_usage": {"license_id": "'lic_' || n"},
    "license.license_key": {"license_id": "'lic_' || n", "key_hash": "'\\x03'::bytea || sha256(n::text::bytea)"},
    "license.license_file": {"license_id": "'lic_' || n % 100", "seq": "n", "license_file_id": "'file_' || n"},
    "license.boundary": {
        "license_id": "'lic_' || n",
        "due_at": "CASE WHEN n % 100 = 0 THEN now() - interval '1 h' ELSE now() + n * interval '1 min' END",
    },
    "license.boundary_recheck": {"policy_id": "'pol_' || n % 5000"},
    "machine.seat": {"license_id": "'lic_' || n", "machines": "0", "users": "0"},
    "machine.machine": {
        "machine_id": "'mach_' || n", "external_id": "'x' || n", "license_id": "'lic_' || n % 5000",
        "product_id": "'prod_' || n % 5000", "policy_id": "'pol_' || n % 5000", "user_id": "'cus_' || n % 5000",
        "identity_hash": "'\\x05'::bytea || sha256(n::text::bytea)",
    },
    "machine.machine_file": {"machine_id": "'mach_' || n % 100", "seq": "n", "machine_file_id": "'file_' || n"},
    "machine.fingerprint": {
        "machine_id": "'mach_' || n", "license_id": "'lic_' || n % 5000", "uniqueness_scope": "'lic_' || n % 5000",
        "fingerprint_hash": "'\\x05'::bytea || sha256(n::text::bytea)",
    },
    "machine.component": {
        "machine_id": "'mach_' || n", "uniqueness_scope": "'mach_' || n",
        "fingerprint_hash": "'\\x06'::bytea || sha256(n::text::bytea)",
    },
    "machine.beat": {
        "machine_id": "'mach_' || n",
        "due_at": "CASE WHEN n % 100 = 0 THEN now() - interval '1 h' ELSE now() + n * interval '1 min' END",
    },
    "machine.process": {
        "machine_id": "'mach_' || n % 5000", "process_id": "'mproc_' || n", "name": "'p' || n",
        "license_id": "'lic_' || n % 5000",
        "due_at": "CASE WHEN n % 100 = 0 THEN now() - interval '1 h' ELSE now() + n * interval '1 min' END",
    },
    "machine.seat_wait": {
        "ticket_id": "'wait_' || n", "license_id": "'lic_' || n % 5000", "place": "n",
        "identity_hash": "'\\x05'::bytea || sha256(n::text::bytea)",
    },
    "record.event": {
        "event_id": "'evt_' || n", "subject": "CASE WHEN n % 4 = 0 THEN 'lic_many' ELSE subject END", "subject_seq": "n",
    },
    "record.subject": {"subject": "'s' || n"},
    "record.outbox": {"event_id": "'evt_' || n"},
    "record.request": {
        "request_id_hash": "sha256(n::text::bytea)", "created_at": "now() - n * interval '1 s'",
    },
}  # fmt: skip

KEY_HASHES = [b"\x03" + hashlib.sha256(b"7").digest(), b"\x03" + hashlib.sha256(b"none").digest()]
"""One that there is, and one that there is not."""
TIME = datetime(2031, 1, 1, tzinfo=UTC)
A_LICENSE = ("license.license", "license.policy", "license.license_usage", "machine.seat")
"""What a license is read from."""


@asynccontextmanager
async def filled(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    """Every table with 20,000 rows."""
    async with scratch(postgres) as made:
        async with made.connect() as admin:
            # No triggers: the log of the changes is not what is looked at here.
            await admin.execute("SET session_replication_role = replica")
            for table, row in sample(LARGE, 0).items():
                if table.startswith("license."):
                    await admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                await insert(admin, table, row)
                columns = {name: NUMBERED[table].get(name, name) for name in row}
                await admin.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} "
                    f"FROM {table}, generate_series(1, {ROWS - 1}) AS n"
                )
            await admin.execute("ANALYZE")
        yield made


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in cast("list[dict[str, Any]]", plan.get("Plans", [])):
        yield from nodes(part)


def literal(value: object) -> str:
    if isinstance(value, list):
        items = cast("list[bytes] | list[str]", value)
        inner = ",".join(f'"\\\\x{item.hex()}"' if isinstance(item, bytes) else f'"{item}"' for item in items)
        return f"'{{{inner}}}'"
    return f"'{value}'"


async def plan_of(
    conn: asyncpg.Connection, statement: str, arguments: Sequence[object], mode: str
) -> list[dict[str, Any]]:
    """The nodes of the plan for these arguments (custom), or for whatever arguments (generic), as a driver may take either."""
    await conn.execute("DEALLOCATE ALL")
    await conn.execute(f"SET LOCAL plan_cache_mode = force_{mode}_plan")
    await conn.execute(f"PREPARE hot AS {statement}")
    given = ", ".join(literal(value) for value in arguments)
    execute = f"EXECUTE hot({given})" if given else "EXECUTE hot"
    explained = await conn.fetchval(f"EXPLAIN (FORMAT JSON, VERBOSE) {execute}")
    return list(nodes(json.loads(explained)[0]["Plan"]))


def refuse_full_reads(found: Sequence[dict[str, Any]], *tables: str) -> None:
    """Fails unless exactly `tables` are read, each through an index whose condition begins with what the caller names. The
    epoch's one row stands beside, and the cluster's few databases."""
    found = [node for node in found if node.get("Relation Name") not in ("epoch", "pg_database")]
    kinds = {node["Node Type"] for node in found}
    assert kinds <= INDEX_SCANS | HARMLESS, kinds
    assert {f"{node['Schema']}.{node['Relation Name']}" for node in found if "Relation Name" in node} == set(tables)
    for node in found:
        if node["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}:
            assert "Index Cond" in node, node
