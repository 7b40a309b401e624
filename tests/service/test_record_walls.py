"""The walls between tenants and between services, each crossed by a real connection as the role that must not pass."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio

from shared.db.roles import LOGIN_ROLES, SCHEMAS, Role
from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import OPERATOR_TENANT, Mode, Tenant
from tests.helpers.record import Scratch, columns, enter, insert, sample, scratch, tables, tenant_tables

SERVICES = (Role.LICENSE, Role.ENTITLEMENT, Role.MACHINE, Role.WEBHOOK)
SERVING = tuple(LOGIN_ROLES)
HERE = Tenant("acc_here", Mode.TEST)
OTHER_MODE = Tenant("acc_here", Mode.LIVE)
OTHER_ACCOUNT = Tenant("acc_there", Mode.TEST)
TENANTS = (HERE, OTHER_MODE, OTHER_ACCOUNT)
FOREIGN = {OTHER_MODE: "mode = 'LIVE'", OTHER_ACCOUNT: "account_id = 'acc_there'"}

UNWALLED = {
    "record.change_log", "record.epoch", "record.lease", "record.migration", "record.process", "record.tail_base",
}  # fmt: skip
"""Tables of ours that hold nothing of a tenant's, or only keys of facts that one role alone may read."""

ACROSS = {
    Role.FACTS: {
        "license.account", "license.operator_key", "license.api_key", "license.workload_binding", "license.tier",
        "license.customer", "license.customer_session", "license.product", "license.policy", "license.license",
        "license.key_set", "license.signing_key",
        "license.license_key",
        "license.license_usage", "license.stale_span", "machine.beat", "machine.component", "machine.fingerprint",
        "machine.machine", "machine.seat",
    },
    Role.LICENSE_WORKER: {
        "record.request", "record.subject", "license.license", "license.license_usage", "license.policy", "license.boundary",
        "license.boundary_recheck",
    },
    Role.MACHINE_WORKER: {
        "record.subject", "machine.beat", "machine.component", "machine.fingerprint", "machine.machine", "machine.process",
        "machine.seat",
    },
}  # fmt: skip
"""What a role may read of all tenants at once; nobody else may read anything so."""


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
        async with made.connect() as conn:
            for number, tenant in enumerate(TENANTS):
                for table, row in sample(tenant, number).items():
                    await insert(conn, table, row, more="ON CONFLICT DO NOTHING")
            for table in set(await tables(conn)) - UNWALLED:
                assert await conn.fetchval(f"SELECT count(*) FROM {table}") >= len({t.account_id for t in TENANTS}), (
                    f"tests.helpers.record.sample has no row of {table}"
                )
        yield made


@asynccontextmanager
async def inside(conn: asyncpg.Connection, tenant: Tenant | None) -> AsyncGenerator[None]:
    """A transaction inside a tenant that leaves nothing behind."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        if tenant is not None:
            await enter(conn, tenant)
        yield
    finally:
        await transaction.rollback()


async def may(conn: asyncpg.Connection, table: str, privilege: str) -> bool:
    schema, _, name = table.partition(".")
    return await conn.fetchval(
        "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, $3) FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
        schema,
        name,
        privilege,
    )


async def refused(conn: asyncpg.Connection, statement: str) -> bool:
    """Whether the role lacks the privilege for a statement (not: whether a row is behind a wall)."""
    try:
        async with inside(conn, HERE):
            await conn.execute(statement)
    except asyncpg.InsufficientPrivilegeError as error:
        return "row-level security" not in str(error)
    except asyncpg.PostgresError:
        return False
    return False


async def all_tables(db: Scratch) -> list[str]:
    async with db.connect() as admin:
        return await tables(admin)


@pytest.mark.parametrize("role", SERVING)
async def test_without_a_tenant_there_are_no_rows(db: Scratch, role: Role) -> None:
    names = set(await all_tables(db)) - UNWALLED
    async with db.connect(role) as conn:
        for used_before in (False, True):
            if used_before:
                # A setting that was local to a transaction is empty afterwards, not unset.
                async with inside(conn, HERE):
                    pass
            seen: set[str] = set()
            for table in names:
                if await may(conn, table, "SELECT"):
                    seen |= {table} if await conn.fetchval(f"SELECT count(*) FROM {table}") else set()
                else:
                    assert await refused(conn, f"SELECT FROM {table}")
            assert seen == ACROSS.get(role, set())


async def test_not_even_the_owner_sees_rows(db: Scratch) -> None:
    async with db.connect() as conn:
        names = await tenant_tables(conn)
        await conn.execute(f"SET ROLE {Role.MIGRATE}")
        for table in names:
            assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 0, table


@pytest.mark.parametrize("role", SERVICES)
async def test_only_the_own_tenants_rows_are_seen(db: Scratch, role: Role) -> None:
    async with db.connect() as admin:
        names = await tenant_tables(admin)
    async with db.connect(role) as conn:
        for table in names:
            if await may(conn, table, "SELECT"):
                async with inside(conn, HERE):
                    own = "account_id = 'acc_here'" + ("" if table == "license.account" else " AND mode = 'TEST'")
                    assert await conn.fetchval(f"SELECT count(*) FROM {table} WHERE {own}") == 1, table
                    assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 1, table


@pytest.mark.parametrize("role", SERVICES)
@pytest.mark.parametrize("tenant", [OTHER_MODE, OTHER_ACCOUNT])
async def test_foreign_rows_are_neither_updated_nor_deleted(db: Scratch, role: Role, tenant: Tenant) -> None:
    async with db.connect() as admin:
        names = await tenant_tables(admin)
    if tenant is OTHER_MODE:
        names.remove("license.account")
    tried = 0
    async with db.connect(role) as conn:
        for table in names:
            change = f"UPDATE {table} SET account_id = account_id"
            for privilege, statement in (("UPDATE", change), ("DELETE", f"DELETE FROM {table}")):
                if not await may(conn, table, privilege):
                    assert await refused(conn, statement), (table, privilege)
                elif await may(conn, table, "SELECT"):
                    tried += 1
                    async with inside(conn, HERE):
                        done = await conn.execute(f"{statement} WHERE {FOREIGN[tenant]}")
                        assert done.endswith(" 0"), (table, done)
    assert tried >= (1 if role is not Role.LICENSE else 8)


@pytest.mark.parametrize("role", SERVICES)
@pytest.mark.parametrize("tenant", [OTHER_MODE, OTHER_ACCOUNT, Tenant("", Mode.TEST)])
async def test_rows_are_not_put_into_another_tenant(db: Scratch, role: Role, tenant: Tenant) -> None:
    async with db.connect() as admin:
        names = await tenant_tables(admin)
    if tenant is OTHER_MODE:
        names.remove("license.account")
    async with db.connect(role) as conn:
        for table in names:
            foreign, own = sample(tenant, 40)[table], sample(HERE, 42)[table]
            if not await may(conn, table, "INSERT"):
                assert await refused(conn, f"INSERT INTO {table} DEFAULT VALUES"), table
                continue
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                async with inside(conn, HERE):
                    await insert(conn, table, foreign)
            if table == "license.account":
                continue
            async with inside(conn, HERE):
                await conn.execute("SET CONSTRAINTS ALL DEFERRED")
                try:
                    await insert(conn, table, own)  # the same row is welcome at home, but for parents it lacks
                except asyncpg.ForeignKeyViolationError:
                    assert table.startswith(("license.", "machine."))


async def test_rows_are_not_moved_into_another_tenant(db: Scratch) -> None:
    async with db.connect() as admin:
        names = await tenant_tables(admin)
    async with db.connect(Role.LICENSE) as conn:
        for table in names:
            if not (await may(conn, table, "UPDATE") and await may(conn, table, "SELECT")):
                continue
            moves = ["account_id = 'acc_there'"] + ([] if table == "license.account" else ["mode = 'LIVE'"])
            for move in moves:
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                    async with inside(conn, HERE):
                        await conn.execute(f"UPDATE {table} SET {move}")


@pytest.mark.parametrize("role", SERVICES)
async def test_no_row_belongs_to_nobody(db: Scratch, role: Role) -> None:
    """A connection that forgets its tenant cannot write, whatever it did before."""
    async with db.connect() as admin:
        names = await tenant_tables(admin)
    async with db.connect(role) as conn:
        async with inside(conn, HERE):
            pass
        for table in names:
            if await may(conn, table, "INSERT"):
                row = sample(Tenant("", Mode.TEST), 44)[table]
                if "mode" in row:
                    row["mode"] = ""
                if table == "license.license_key":
                    del row["license_id"]
                refusal = (
                    asyncpg.CheckViolationError if table == "license.account" else asyncpg.InsufficientPrivilegeError
                )
                with pytest.raises(refusal):
                    async with inside(conn, None):
                        await insert(conn, table, row)


async def test_an_operators_transaction_sees_accounts_and_bindings_and_nothing_in_accounts(db: Scratch) -> None:
    visible = {"license.account": 2, "license.workload_binding": 3}
    async with db.connect(Role.LICENSE) as conn:
        for table in await all_tables(db):
            if table not in UNWALLED and await may(conn, table, "SELECT"):
                async with inside(conn, OPERATOR_TENANT):
                    seen = await conn.fetchval(f"SELECT count(*) FROM {table}")
                assert seen == visible.get(table, 0), table


async def test_an_operators_transaction_reads_bindings_and_writes_none(db: Scratch) -> None:
    """It enters their tenant for that."""
    async with db.connect(Role.LICENSE) as conn:
        for statement in (
            "UPDATE license.workload_binding SET display_name = 'x'",
            "DELETE FROM license.workload_binding",
        ):
            async with inside(conn, OPERATOR_TENANT):
                assert (await conn.execute(statement)).endswith(" 0")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with inside(conn, OPERATOR_TENANT):
                await insert(conn, "license.workload_binding", sample(HERE, 42)["license.workload_binding"])


@pytest.mark.parametrize("role", [Role.WEBHOOK, Role.ENTITLEMENT, Role.MACHINE])
async def test_the_license_services_tables_are_its_own(db: Scratch, role: Role) -> None:
    async with db.connect(role) as conn:
        for table in await all_tables(db):
            if table.startswith("license."):
                for statement in (
                    f"SELECT FROM {table}",
                    f"INSERT INTO {table} DEFAULT VALUES",
                    f"DELETE FROM {table}",
                ):
                    assert await refused(conn, statement), statement


async def test_the_license_service_reads_neither_operator_keys_nor_the_change_log(db: Scratch) -> None:
    async with db.connect(Role.LICENSE) as conn:
        for table in ("license.operator_key", "record.change_log"):
            for statement in (f"SELECT FROM {table}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
                assert await refused(conn, statement), statement
        assert await refused(conn, "INSERT INTO license.operator_key DEFAULT VALUES")


async def test_facts_are_read_and_never_written(db: Scratch) -> None:
    async with db.connect(Role.FACTS) as conn:
        for table in await all_tables(db):
            column = (await columns(conn, table))[-1]
            for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}", f"TRUNCATE {table}"):
                assert await refused(conn, statement), statement
            assert await refused(conn, f"INSERT INTO {table} DEFAULT VALUES") == (table != "record.epoch"), table
        assert await conn.fetchval("SELECT count(*) FROM record.epoch") == 1
        for tenant, number in zip(TENANTS, range(3), strict=True):
            rows = sample(tenant, number)
            key = bytes.fromhex(rows["license.license_key"]["key_hash"][2:])
            found = await conn.fetchval(
                "SELECT license_id FROM license.license_key_facts($1, $2, $3)",
                tenant.account_id, tenant.mode.value, [key],
            )  # fmt: skip
            assert found == rows["license.license"]["license_id"]


WORKER_MAY = {
    "record.migration": "SELECT", "record.epoch": "SELECT", "record.request": "SELECT UPDATE DELETE",
    "record.event": "INSERT", "record.outbox": "INSERT", "record.change_log": "SELECT INSERT DELETE",
    "record.tail_base": "SELECT INSERT DELETE", "record.subject": "SELECT INSERT UPDATE",
    "license.license": "SELECT", "license.policy": "SELECT", "license.license_usage": "SELECT INSERT UPDATE",
    "license.customer_session": "SELECT UPDATE DELETE", "license.boundary": "SELECT INSERT UPDATE",
    "license.boundary_recheck": "SELECT UPDATE DELETE",
}  # fmt: skip
"""What the worker may do in whole tables; of licenses it may change the state too."""


async def test_the_worker_may_do_what_it_has_to_and_nothing_else(db: Scratch) -> None:
    async with db.connect(Role.LICENSE_WORKER) as conn:
        for table in await all_tables(db):
            for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
                assert await may(conn, table, privilege) == (privilege in WORKER_MAY.get(table, "").split()), (
                    table,
                    privilege,
                )
        for column in await columns(conn, "license.license"):
            changes = await conn.fetchval("SELECT has_column_privilege('license.license', $1, 'UPDATE')", column)
            assert changes == (column in {"status", "status_reason", "revision", "updated_at"}), column


async def test_the_worker_sees_the_sessions_alone_that_are_over(db: Scratch) -> None:
    async with db.connect() as admin, db.connect(Role.LICENSE_WORKER) as conn:
        count = "SELECT count(*) FROM license.customer_session"
        assert await admin.fetchval(count) == len(TENANTS)
        assert await conn.fetchval(count) == 0
        async with inside(conn, HERE):
            assert await conn.execute("DELETE FROM license.customer_session") == "DELETE 0"


@pytest.mark.parametrize("role", SERVING)
async def test_no_serving_role_truncates(db: Scratch, role: Role) -> None:
    """TRUNCATE walks through row-level security; so would a trigger or a foreign key of the role's own."""
    async with db.connect(role) as conn:
        for table in await all_tables(db):
            assert await refused(conn, f"TRUNCATE {table} CASCADE"), table
            assert not await may(conn, table, "TRIGGER, REFERENCES, TRUNCATE"), table
        for schema in SCHEMAS:
            assert not await conn.fetchval("SELECT has_schema_privilege(current_user, $1, 'CREATE')", schema), schema
