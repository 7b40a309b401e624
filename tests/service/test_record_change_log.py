"""Whoever changes what a fact is made of leaves its key in the change log, in the same transaction, and only that."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import Mode, Tenant
from tests.helpers.fact_functions import MORE_OF_THE_KEY, Fact, FactFunction, fact_functions, update, watched
from tests.helpers.record import Row, Scratch, columns, insert, sample, scratch

ONE, TWO = sample(Tenant("acc_one", Mode.TEST), 0), sample(Tenant("acc_two", Mode.LIVE), 1)
REPLICATION_ROLES = ("origin", "replica")


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
        yield made


async def facts_of(
    conn: asyncpg.Connection, functions: Sequence[FactFunction], rows: Sequence[tuple[str, Row]]
) -> dict[Fact, list[str]]:
    """What the fact functions say under every key that one of `rows` of a table has."""
    found: dict[Fact, list[str]] = {}
    for function in functions:
        for table, row in rows:
            if table == function.table:
                more = MORE_OF_THE_KEY.get(function.kind, [])
                asked = [row[column] for column in function.key if column not in more]
                lines = [line[0] for line in await conn.fetch(function.statement, *asked)]
                found[function.key_of(row)] = [
                    line for line in lines if all(json.loads(line)[column] == row[column] for column in more)
                ]
    return found


@dataclass(frozen=True)
class Change:
    """What a change did: the facts that differ, and what was logged."""

    changed: set[Fact]
    logged: list[Fact]


async def logged_by(conn: asyncpg.Connection, run: Callable[[], Awaitable[Any]]) -> list[Fact]:
    mark = await conn.fetchval("SELECT coalesce(max(revision), 0) FROM record.change_log")
    await run()
    rows = await conn.fetch(
        "SELECT kind, key, xid = pg_current_xact_id() AS mine FROM record.change_log WHERE revision > $1 ORDER BY revision",
        mark,
    )
    assert all(row["mine"] for row in rows), "a row of the log has the id of another transaction"
    return [(row["kind"], row["key"]) for row in rows]


async def observe(
    conn: asyncpg.Connection, rows: Sequence[tuple[str, Row]], run: Callable[[], Awaitable[Any]]
) -> Change:
    functions = await fact_functions(conn)
    before = await facts_of(conn, functions, rows)
    logged = await logged_by(conn, run)
    after = await facts_of(conn, functions, rows)
    return Change({key for key in before if before[key] != after[key]}, logged)


@asynccontextmanager
async def undone(conn: asyncpg.Connection, replication_role: str = "") -> AsyncGenerator[None]:
    """A transaction, or a savepoint within one, that is rolled back."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        if replication_role:
            await conn.execute(f"SET LOCAL session_replication_role = {replication_role}")
        yield
    finally:
        await transaction.rollback()


async def put_parents(conn: asyncpg.Connection, table: str) -> None:
    """The rows of both samples that come before a table's own."""
    for rows in (ONE, TWO):
        for name, row in rows.items():
            if name == table:
                break
            await insert(conn, name, row)


BESIDE = {"duration"}
"""What a fact says only where another column is empty."""


def own(table: str, logged: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the seats of the license, whose row a trigger keeps by its machines."""
    return [key for key in logged if table != "machine.machine" or key[0] != "seats"]


@pytest.mark.parametrize("replication_role", REPLICATION_ROLES)
async def test_inserts_and_deletes_log_the_row(db: Scratch, replication_role: str) -> None:
    async with db.connect() as conn:
        for table, function in (await watched(conn)).items():
            row = ONE[table]
            key = function.key_of(row)
            async with undone(conn, replication_role):
                await put_parents(conn, table)
                inserted = await observe(conn, [(table, row)], partial(insert, conn, table, row))
                assert (inserted.changed, own(table, inserted.logged)) == ({key}, [key]), table
                deleted = await observe(conn, [(table, row)], partial(conn.execute, f"DELETE FROM {table}"))
                assert (deleted.changed, own(table, deleted.logged)) == ({key}, [key]), table


@pytest.mark.parametrize("variant", ["other", "null"])
@pytest.mark.parametrize("replication_role", REPLICATION_ROLES)
async def test_updates_of_any_column_log_the_row_under_both_its_keys(
    db: Scratch, replication_role: str, variant: str
) -> None:
    """As a replica there are no foreign keys, so that parent columns can change too."""
    async with db.connect() as conn:
        for table, function in (await watched(conn)).items():
            old = ONE[table]
            telling: set[str] = set()
            async with undone(conn, replication_role):
                await put_parents(conn, table)
                await insert(conn, table, old)
                for column in await columns(conn, table):
                    assert old[column] != TWO[table][column], f"the samples of {table} have the same {column}"
                    if variant == "null" and column in function.key:
                        continue
                    new = {**old, column: TWO[table][column] if variant == "other" else None}
                    rows = [(table, old), (table, new)]
                    try:
                        async with undone(conn):
                            change = await observe(conn, rows, partial(update, conn, table, column, new[column]))
                    except asyncpg.ForeignKeyViolationError:
                        assert replication_role == "origin", (table, column)
                        continue
                    except (asyncpg.NotNullViolationError, asyncpg.CheckViolationError):
                        assert variant == "null", (table, column)
                        continue
                    assert change.changed <= set(change.logged), (table, column)
                    keys = {function.key_of(old), function.key_of(new)}
                    assert sorted(own(table, change.logged)) == sorted(keys), (table, column)
                    telling |= {column} if change.changed else set()
            whether = {"revoked_at"}  # facts say only whether it is there
            if variant == "null":
                assert telling >= function.reads & whether, table
            elif replication_role == "replica":
                assert telling == function.reads - whether - BESIDE, table


async def test_the_triggers_always_fire(db: Scratch) -> None:
    async with db.connect() as conn:
        for table in await watched(conn):
            rows = await conn.fetch(
                "SELECT tgenabled FROM pg_trigger WHERE tgrelid = $1::text::regclass AND tgname LIKE 'log\\_%'",
                table,
            )
            assert [row["tgenabled"] for row in rows] == [b"A", b"A"], table


async def test_a_key_of_a_deleted_license_is_logged_too(db: Scratch) -> None:
    """The foreign key changes a row of another table."""
    async with db.connect() as conn:
        tables = await watched(conn)
        async with undone(conn):
            for table, row in ONE.items():
                await insert(conn, table, row)
            both = [(table, ONE[table]) for table in ("license.license", "license.license_key")]
            change = await observe(conn, both, partial(conn.execute, "DELETE FROM license.license"))
        assert change.changed == set(change.logged) == {tables[table].key_of(row) for table, row in both}
        assert len(change.logged) == 2


@pytest.mark.parametrize("replication_role", REPLICATION_ROLES)
async def test_a_truncate_drops_all(db: Scratch, replication_role: str) -> None:
    async with db.connect() as conn:
        for table in await watched(conn):
            async with undone(conn, replication_role):
                logged = await logged_by(conn, partial(conn.execute, f"TRUNCATE {table} CASCADE"))
            assert ("drop_all", table) in logged
            assert {kind for kind, _ in logged} == {"drop_all"}


async def test_a_policy_with_a_thousand_licenses_is_one_row(db: Scratch) -> None:
    async with db.connect() as conn:
        tables = await watched(conn)
        async with undone(conn):
            await put_parents(conn, "license.license")
            await insert(conn, "license.license", ONE["license.license"])
            names = [name for name in ONE["license.license"] if name not in ("license_id", "external_id")]
            listed = ", ".join(names)
            copies = (
                f"INSERT INTO license.license (license_id, external_id, {listed}) SELECT 'lic_' || n, n, {listed} "
                "FROM license.license, generate_series(2, 1000) AS n"
            )
            assert len(await logged_by(conn, partial(conn.execute, copies))) == 999
            change = "UPDATE license.policy SET is_trial = NOT is_trial WHERE account_id = 'acc_one'"
            assert await logged_by(conn, partial(conn.execute, change)) == [
                tables["license.policy"].key_of(ONE["license.policy"])
            ]
            change = "UPDATE license.license SET status = 'revoked'"
            assert len(await logged_by(conn, partial(conn.execute, change))) == 1000


async def test_a_savepoint_logs_under_the_id_of_the_whole_transaction(db: Scratch) -> None:
    """A subtransaction has an id of its own, which no snapshot that a poll compares with would show."""
    async with db.connect() as conn, undone(conn):
        whole = await conn.fetchval("SELECT pg_current_xact_id()::text")
        async with conn.transaction():
            await insert(conn, "license.operator_key", ONE["license.operator_key"])
        assert await conn.fetchval("SELECT xid::text FROM record.change_log ORDER BY revision DESC LIMIT 1") == whole


async def test_what_is_rolled_back_is_not_logged(db: Scratch) -> None:
    async with db.connect() as conn, db.connect() as other:
        count = "SELECT count(*) FROM record.change_log"
        before = await other.fetchval(count)
        async with conn.transaction():
            async with undone(conn):
                await insert(conn, "license.operator_key", ONE["license.operator_key"])
                assert await conn.fetchval(count) == before + 1
            assert await conn.fetchval(count) == before
        assert await other.fetchval(count) == before


async def test_keys_do_not_depend_on_the_sessions_settings(db: Scratch) -> None:
    async with db.connect() as conn:
        function = (await watched(conn))["license.operator_key"]
        row = ONE[function.table]
        async with undone(conn):
            await conn.execute("SET LOCAL bytea_output = escape")
            assert await logged_by(conn, partial(insert, conn, function.table, row)) == [function.key_of(row)]
