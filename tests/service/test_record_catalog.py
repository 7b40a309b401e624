"""What the catalog says of tables, keys, roles and fact functions: the walls as they are built."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import asyncpg
import pytest_asyncio

from shared.db.roles import LOGIN_ROLES, SCHEMAS, Role
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.record import Scratch, scratch, tenant_tables
from tests.service.test_record_walls import UNWALLED

SERVING = tuple(LOGIN_ROLES)


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
        yield made


async def refused(conn: asyncpg.Connection, statement: str) -> bool:
    """Whether the role lacks the privilege for a statement."""
    try:
        await conn.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


async def test_every_table_with_an_account_is_walled(db: Scratch) -> None:
    async with db.connect() as admin:
        walled = await admin.fetch(
            "SELECT oid::regclass::text AS name, relrowsecurity AND relforcerowsecurity AS walled FROM pg_class "
            "WHERE relkind IN ('r', 'p') AND relnamespace = ANY ($1::regnamespace[])",
            list(SCHEMAS),
        )
        assert {row["name"] for row in walled if not row["walled"]} == UNWALLED
        assert not UNWALLED & set(await tenant_tables(admin))


async def test_no_role_is_powerful(db: Scratch) -> None:
    async with db.connect() as admin:
        roles = await admin.fetch("SELECT * FROM pg_roles WHERE rolname LIKE 'lictor%'")
        assert {row["rolname"] for row in roles} == set(Role)
        for row in roles:
            powers = (
                row["rolsuper"],
                row["rolbypassrls"],
                row["rolcreaterole"],
                row["rolcreatedb"],
                row["rolreplication"],
            )
            assert not any(powers), row["rolname"]
            assert row["rolcanlogin"] == (row["rolname"] in SERVING), row["rolname"]
        owners = await admin.fetch(
            "SELECT DISTINCT pg_get_userbyid(relowner) AS name FROM pg_class WHERE relnamespace = ANY ($1::regnamespace[]) "
            "UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = ANY ($1::regnamespace[]) "
            "UNION SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = ANY ($1::text[])",
            list(SCHEMAS),
        )
        assert {row["name"] for row in owners} == {Role.MIGRATE.value, Role.VIEWS.value}
        members = "SELECT member::regrole || ' of ' || roleid::regrole FROM pg_auth_members "
        found = await admin.fetch(members + "WHERE member::regrole::text = ANY ($1)", [role.value for role in Role])
        assert [row[0] for row in found] == [f"{Role.MIGRATE.value} of {Role.VIEWS.value}"]


async def test_fact_functions_are_plain_reads_for_one_role(db: Scratch) -> None:
    async with db.connect() as admin:
        functions = await admin.fetch(
            "SELECT oid::regprocedure::text AS name, proname, provolatile, prosecdef, prosqlbody IS NOT NULL AS atomic, "
            "proconfig, array(SELECT grantee::regrole::text FROM aclexplode(proacl)) AS allowed "
            "FROM pg_proc WHERE pronamespace = ANY ($1::regnamespace[]) AND proname LIKE '%\\_facts'",
            [schema for schema in SCHEMAS if schema != "record"],
        )
    assert len(functions) >= 6
    for row in functions:
        assert row["provolatile"] == b"s", row["name"]
        assert not row["prosecdef"], row["name"]
        assert row["atomic"], row["name"]
        assert row["proconfig"] is None, f"{row['name']} cannot be inlined with a setting of its own"
        assert set(row["allowed"]) == {Role.MIGRATE.value, Role.FACTS.value}, row["name"]
    for role in SERVING:
        async with db.connect(role) as conn:
            for row in functions:
                nulls = ", ".join(["NULL"] * (row["name"].count(",") + 1))
                call = f"SELECT {row['name'].partition('(')[0]}({nulls})"
                assert await refused(conn, call) == (role is not Role.FACTS), (role, call)


async def test_unique_and_foreign_keys_begin_with_the_tenant(db: Scratch) -> None:
    """A key that did not would tell one tenant what another has, or let it point into another."""
    async with db.connect() as admin:
        keys = await admin.fetch(
            "SELECT conname, conrelid::regclass::text AS t, array(SELECT attname FROM unnest(conkey) WITH ORDINALITY AS k(n, o) "
            "JOIN pg_attribute ON attrelid = conrelid AND attnum = k.n ORDER BY o) AS names FROM pg_constraint "
            "WHERE contype IN ('p', 'u', 'f') AND connamespace = ANY ($1::regnamespace[])",
            list(SCHEMAS),
        )
        tenants = set(await tenant_tables(admin))
    wide = {row["conname"] for row in keys if row["t"] in tenants and list(row["names"])[:2] != ["account_id", "mode"]}
    to_accounts = {name for name in wide if name.endswith("_account_id_fkey")}
    of_operators = {"workload_binding_id", "workload_binding_external_id", "workload_binding_pattern"}
    assert (
        wide - to_accounts
        == {
            "account_pkey",
            "account_external_id",
            "api_key_hash",
            "customer_session_token",
            "key_set_id",
            "signing_key_id",
        }
        | of_operators
    )
