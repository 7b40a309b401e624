"""The statements that must stay fast with many rows never read a table from end to end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import asyncpg
import pytest
import pytest_asyncio

from services.license import (
    account_store,
    boundary_store,
    catalog_store,
    customer_session_store,
    customer_store,
    event_store,
    key_store,
    mark_store,
    store,
    tier_store,
    watch_store,
    workload_store,
)
from services.license.model import Status
from services.license.watch_marks import Group, Narrowed
from shared.db.pool import POINT_READS
from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from shared.facts.credential_loads import API_KEY_LOAD, CUSTOMER_SESSION_LOAD, OPERATOR_KEY_LOAD, WORKLOAD_LOAD
from shared.facts.license_loads import LOAD_BATCH, LOAD_BY_ID, LOAD_BY_KEY
from shared.facts.stale_spans import LONGEST_STALE
from shared.rules.spiffe import SpiffeId
from shared.tenancy import OPERATOR_TENANT, Mode, Tenant
from tests.helpers.record import Scratch, enter, insert, sample, scratch

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
    "machine.fingerprint": {
        "machine_id": "'mach_' || n", "license_id": "'lic_' || n % 5000", "uniqueness_scope": "'lic_' || n % 5000",
        "fingerprint_hash": "'\\x05'::bytea || sha256(n::text::bytea)",
    },
    "machine.component": {
        "machine_id": "'mach_' || n", "uniqueness_scope": "'mach_' || n",
        "fingerprint_hash": "'\\x06'::bytea || sha256(n::text::bytea)",
    },
    "machine.beat": {"machine_id": "'mach_' || n"},
    "record.event": {
        "event_id": "'evt_' || n", "subject": "CASE WHEN n % 4 = 0 THEN 'lic_many' ELSE subject END", "subject_seq": "n",
    },
    "record.subject": {"subject": "'s' || n"},
    "record.outbox": {"event_id": "'evt_' || n"},
    "record.request": {
        "request_id_hash": "sha256(n::text::bytea)", "created_at": "now() - n * interval '1 s'",
    },
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
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


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="empty")
async def _empty(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
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


KEY_HASHES = [b"\x03" + hashlib.sha256(b"7").digest(), b"\x03" + hashlib.sha256(b"none").digest()]
TRUST_DOMAIN = sample(LARGE, 0)["license.workload_binding"]["trust_domain"]
OF_A_LICENSE = (
    "license.license", "license.license_usage", "license.product", "license.policy", "license.customer", "license.tier",
)  # fmt: skip
HOT = {
    "LOAD_BY_KEY": (LOAD_BY_KEY, (LARGE.account_id, "LIVE", KEY_HASHES), ("license.license_key", *OF_A_LICENSE)),
    "LOAD_BY_ID": (LOAD_BY_ID, (LARGE.account_id, "LIVE", "lic_7"), OF_A_LICENSE),
    "LOAD_BATCH": (
        LOAD_BATCH, (LARGE.account_id, "LIVE", [0, 1], [KEY_HASHES[0], None], [None, "lic_7"]),
        ("license.license_key", *OF_A_LICENSE),
    ),
    "API_KEY_LOAD": (API_KEY_LOAD, (KEY_HASHES,), ("license.api_key", "license.account")),
    "CUSTOMER_SESSION_LOAD": (
        CUSTOMER_SESSION_LOAD, (KEY_HASHES,), ("license.customer_session", "license.account", "license.customer"),
    ),
    "WORKLOAD_LOAD": (
        WORKLOAD_LOAD, (TRUST_DOMAIN, list(SpiffeId(TRUST_DOMAIN, "/w/x7").covering_paths())),
        ("license.workload_binding", "license.account"),
    ),
    "LONGEST_STALE": (LONGEST_STALE, (LARGE.account_id,), ("license.policy", "license.stale_span")),
    "OPERATOR_KEY_LOAD": (OPERATOR_KEY_LOAD, (KEY_HASHES,), ("license.operator_key",)),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", HOT)
async def test_facts_are_loaded_through_indexes(db: Scratch, name: str, mode: str) -> None:
    statement, arguments, tables = HOT[name]
    async with db.connect(Role.FACTS) as conn, conn.transaction():
        found = await plan_of(conn, statement, arguments, mode)
    refuse_full_reads(found, *tables)


@pytest.mark.parametrize("name", HOT)
async def test_plans_made_while_the_tables_are_empty_are_no_others(empty: Scratch, name: str) -> None:
    """They are kept while the tables grow."""
    statement, arguments, tables = HOT[name]
    async with empty.connect(Role.FACTS) as conn, conn.transaction():
        for setting, value in POINT_READS.items():
            await conn.execute(f"SET LOCAL {setting} = {value}")
        found = await plan_of(conn, statement, arguments, "generic")
    refuse_full_reads(found, *tables)


A_LICENSE = ("license.license", "license.policy", "license.license_usage")
"""What a license is read from."""

FILTERS = {
    "all": store.LicenseFilter(),
    "product": store.LicenseFilter(product_id="prod_7"),
    "policy": store.LicenseFilter(policy_id="pol_7"),
    "customer": store.LicenseFilter(customer_id="cus_7"),
    "tier": store.LicenseFilter(tier_id="tier_7"),
    "email": store.LicenseFilter(customer_email="7@x.test"),
    "everything": store.LicenseFilter("prod_7", "pol_7", "cus_7", "7@x.test", "tier_7", Status.ACTIVE),
    **{f"status {status}": store.LicenseFilter(status=status) for status in Status if status is not Status.EXPIRED},
}
"""Not the expired ones: which they are is a matter of the time, so they are looked for among all active ones."""


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", FILTERS)
async def test_pages_of_licenses_are_read_through_indexes(db: Scratch, name: str, mode: str) -> None:
    statement, values = store.page_of_licenses_statement(FILTERS[name])
    async with db.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", "lic_5", 51, *values), mode)
    more = ["license.customer"] if FILTERS[name].customer_email else []
    refuse_full_reads(found, *A_LICENSE, *more)


GROUP = Group("customer_id", "cus_7")
WATCHED = {
    "all": (Narrowed(), None),
    "a product": (Narrowed(product_id="prod_7"), None),
    "a policy": (Narrowed(policy_id="pol_7"), None),
    "a product and a policy": (Narrowed("prod_7", "pol_7"), None),
    "a customer that changed": (Narrowed(), GROUP),
    "a customer that changed, of a product and a policy": (Narrowed("prod_7", "pol_7"), GROUP),
    "the policy itself that changed": (Narrowed(policy_id="pol_7"), Group("policy_id", "pol_7")),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", WATCHED)
async def test_what_streams_follow_is_found_through_indexes(db: Scratch, name: str, mode: str) -> None:
    statement, values = watch_store.page_statement(*WATCHED[name])
    async with db.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", "lic_5", 100, *values), mode)
    refuse_full_reads(found, "license.license")


async def test_what_has_changed_since_is_read_through_the_index_of_transactions(db: Scratch) -> None:
    async with db.connect(Role.FACTS) as conn, conn.transaction():
        for setting, value in POINT_READS.items():
            await conn.execute(f"SET LOCAL {setting} = {value}")
        arguments = ("100:200:150", 20_000, "acc_1/TEST/")
        found = await plan_of(conn, watch_store.CHANGED_SINCE, arguments, "generic")
    reads = [node for node in found if node.get("Relation Name") == "change_log"]
    assert len(reads) == 2
    assert {node["Node Type"] for node in reads} <= INDEX_SCANS


CUSTOMERS = {
    "all": customer_store.CustomerFilter(),
    "email": customer_store.CustomerFilter(email="7@x.test"),
    "subject_ref": customer_store.CustomerFilter(subject_ref="s7"),
    "banned": customer_store.CustomerFilter(banned=True),
    "not banned": customer_store.CustomerFilter(banned=False),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", CUSTOMERS)
async def test_pages_of_customers_are_read_through_indexes(db: Scratch, name: str, mode: str) -> None:
    statement, values = customer_store.page_statement(CUSTOMERS[name])
    async with db.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", "cus_5", 51, *values), mode)
    if name in {"email", "subject_ref"}:  # what is put in order is the one row that the name finds
        found = [node for node in found if node["Node Type"] != "Sort"]
    refuse_full_reads(found, "license.customer")
    if name == "banned":
        assert "customer_banned" in {node.get("Index Name") for node in found}


OTHERS: dict[str, tuple[Any, ...]] = {
    "products": (catalog_store.PAGE_OF_PRODUCTS, ("prod_5", 51), "license.product"),
    "policies": (catalog_store.PAGE_OF_POLICIES, ("pol_5", 51), "license.policy"),
    "a product's policies": (catalog_store.PAGE_OF_PRODUCTS_POLICIES, ("pol_5", 51, "prod_7"), "license.policy"),
    "tiers": (tier_store.PAGE, ("tier_5", 51), "license.tier"),
    "a product's tiers": (tier_store.PAGE_OF_A_PRODUCT, ("tier_5", 51, "prod_7"), "license.tier"),
    "API keys": (account_store.PAGE_OF_KEYS, ("key_5", 51), "license.api_key"),
    "a locked binding": (workload_store.LOCK, ("wlb_7",), "license.workload_binding"),
    "a license": (store.GET_LICENSE, ("lic_7",), *A_LICENSE),
    "a license by external id": (store.GET_LICENSE_BY_EXTERNAL_ID, ("x7",), *A_LICENSE),
    "a locked license": (store.LOCK_LICENSE, ("lic_7",), "license.license"),
    "a key": (key_store.FIND, (KEY_HASHES,), "license.license_key"),
    "a sealed key": (key_store.GET_SEALED, ("lic_7",), "license.license_key"),
    "keys sealed before": (key_store.HOLD_SEALED_BEFORE, ("\\x03", 2, 200), "license.license_key"),
    "a live session": (customer_session_store.IS_LIVE, ("cses_7",), "license.customer_session"),
    "keys of an import": (key_store.FIND_MANY, (KEY_HASHES,), "license.license_key"),
    "licenses by external ids": (store.GET_LICENSES_BY_EXTERNAL_ID, (["x7", "x8"],), *A_LICENSE),
    "products of an import": (catalog_store.HOLD_PRODUCTS, (["prod_7"],), "license.product"),
    "policies of an import": (catalog_store.HOLD_POLICIES, (["pol_7", "pol_8"],), "license.policy"),
    "policies by external ids": (catalog_store.HOLD_POLICIES_BY_EXTERNAL_ID, (["x7", "x8"],), "license.policy"),
    "tiers of an import": (tier_store.HOLD_MANY, (["tier_7", "tier_8"],), "license.tier"),
    "tiers by slugs": (tier_store.HOLD_MANY_BY_SLUG, (["prod_7"], ["t7", "t8"]), "license.tier"),
    "customers of an import": (customer_store.HOLD_MANY, (["cus_7", "cus_8"],), "license.customer"),
    "customers by emails": (customer_store.HOLD_MANY_BY_EMAIL, (["7@x.test", "8@x.test"],), "license.customer"),
    "customers by subject_refs": (customer_store.HOLD_MANY_BY_SUBJECT, (["s7", "s8"],), "license.customer"),
    "a subject": (event_store.IS_KNOWN, ("s7",), "record.subject"),
    "a customer by email": (customer_store.HOLD_BY_EMAIL, ("7@x.test",), "license.customer"),
    "a customer by subject_ref": (customer_store.GET_BY_SUBJECT, ("s7",), "license.customer"),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", OTHERS)
async def test_other_reads_of_a_tenant_go_through_indexes(db: Scratch, name: str, mode: str) -> None:
    statement, values, *tables = OTHERS[name]
    async with db.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", *values), mode)
    # What is put in order is what the names found.
    refuse_full_reads([node for node in found if node["Node Type"] != "Sort" or "ANY" not in statement], *tables)


TIME = datetime(2031, 1, 1, tzinfo=UTC)
EVENTS = {
    "all": event_store.EventFilter("lic_many"),
    "types": event_store.EventFilter("lic_many", ("license.created", "license.suspended")),
    "times": event_store.EventFilter("lic_many", (), TIME, TIME + timedelta(days=1)),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", EVENTS)
async def test_the_events_of_a_license_are_read_in_the_order_of_their_numbers(
    db: Scratch, name: str, mode: str
) -> None:
    """Through the index of the numbers, so that a page of one license among all events reads that page."""
    statement, values = event_store.page_statement(EVENTS[name])
    async with db.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", "lic_many", 5, 51, *values), mode)
    refuse_full_reads(found, "record.event")
    assert "event_account_id_mode_subject_subject_seq_key" in {node.get("Index Name") for node in found}


OPERATORS = {
    "a binding": (workload_store.GET, ("wlb_7",)),
    "a binding by external id": (workload_store.GET_BY_EXTERNAL_ID, ("x7",)),
    "bindings": (workload_store.PAGE, ("wlb_5", 51)),
    "an account's bindings": (workload_store.PAGE_OF_AN_ACCOUNT, ("wlb_5", 51, LARGE.account_id)),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", OPERATORS)
async def test_an_operators_reads_of_bindings_go_through_indexes(db: Scratch, name: str, mode: str) -> None:
    statement, values = OPERATORS[name]
    async with db.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, OPERATOR_TENANT)
        found = await plan_of(conn, statement, values, mode)
    refuse_full_reads(found, "license.workload_binding")


MANY = ([LARGE.account_id] * 3, ["LIVE"] * 3, ["lic_1", "lic_2", "lic_3"])
MARKS = (*MANY, [TIME] * 3)
WORKERS = {
    "licenses that are due": (boundary_store.CLAIM, (100,), ("license.boundary", "license.license")),
    "licenses of a policy": (
        boundary_store.LOOK_AGAIN, (LARGE.account_id, "LIVE", "pol_7", "lic_1", 500), ("license.license", "license.boundary"),
    ),
    "licenses": (store.GET_LICENSES_ACROSS, MANY, ("license.license", "license.policy", "license.license_usage")),
    "marks": (mark_store.MARK, MARKS, ("license.license",)),
    "unseen licenses": (mark_store.HOLD_UNSEEN, MARKS, ("license.license", "license.license_usage")),
    "first marks": (mark_store.MARK_FIRST, MARKS, ("license.license_usage",)),
}  # fmt: skip
OF_LISTS = {"Function Scan", "Sort", "ModifyTable", "CTE Scan"}
"""Nodes that work on what the caller names, or on what was found through an index."""


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", WORKERS)
async def test_the_workers_read_what_is_due_or_named_and_nothing_else(db: Scratch, name: str, mode: str) -> None:
    statement, values, tables = WORKERS[name]
    async with db.connect(Role.LICENSE_WORKER) as conn, conn.transaction():
        found = await plan_of(conn, statement, values, mode)
    refuse_full_reads([node for node in found if node["Node Type"] not in OF_LISTS], *tables)
    if name == "licenses that are due":
        assert "boundary_due" in {node.get("Index Name") for node in found}


async def test_the_worker_takes_the_first_of_the_policies_that_wait(db: Scratch) -> None:
    async with db.connect(Role.LICENSE_WORKER) as conn, conn.transaction():
        found = await plan_of(conn, boundary_store.CLAIM_RECHECK, (), "generic")
    assert [node["Node Type"] for node in found] == ["Limit", "LockRows", "Index Scan"]
    assert found[-1]["Index Name"] == "boundary_recheck_order"


async def test_the_sweep_goes_by_age(db: Scratch) -> None:
    old = "SELECT ctid FROM record.request WHERE created_at < now() - interval '24 hours' ORDER BY created_at LIMIT $1"
    async with db.connect(Role.LICENSE_WORKER) as conn, conn.transaction():
        found = await plan_of(conn, old + " FOR UPDATE SKIP LOCKED", (1000,), "generic")
    refuse_full_reads(found, "record.request")
    assert "request_created_at" in {node.get("Index Name") for node in found}


async def test_the_sweep_of_sessions_goes_by_their_end(db: Scratch) -> None:
    async with db.connect(Role.LICENSE_WORKER) as conn, conn.transaction():
        found = await plan_of(conn, customer_session_store.OVER, (1000,), "generic")
    refuse_full_reads(found, "license.customer_session")
    assert "customer_session_expires_at" in {node.get("Index Name") for node in found}


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_a_customers_sessions_are_ended_through_an_index(db: Scratch, mode: str) -> None:
    async with db.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        arguments = (LARGE.account_id, "LIVE", "cus_7")
        found = await plan_of(conn, customer_session_store.DELETE_OF_CUSTOMER, arguments, mode)
    refuse_full_reads([node for node in found if node["Node Type"] != "ModifyTable"], "license.customer_session")
