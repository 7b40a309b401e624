"""`migrate` brings any database to this version once, whoever else tries at the same time, or changes nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from shared.db.migrate import FOLDER, MigrationError, load_migrations, migrate
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import LOGIN_ROLES, Role
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.embedded import state_directory
from tests.helpers.record import Scratch, digests, scratch, tables

OWN = [migration.name for migration in load_migrations()]
HEADER = "-- min_compatible: 1\nSELECT 1;\n"


@pytest_asyncio.fixture(loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres, migrated=False) as made:
        yield made


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """Our migrations, to add to."""
    folder = tmp_path / "migrations"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__*"))
    return folder


async def versions(db: Scratch) -> list[int]:
    async with db.connect() as admin:
        return [row[0] for row in await admin.fetch("SELECT version FROM record.migration ORDER BY version")]


async def test_each_is_applied_once(db: Scratch) -> None:
    assert await migrate(db.admin_dsn) == OWN
    async with db.connect() as admin:
        before = await digests(admin)
        assert await migrate(db.admin_dsn) == []
        assert await digests(admin) == before
        for migration in load_migrations():
            row = await admin.fetchrow("SELECT * FROM record.migration WHERE version = $1", migration.version)
            assert row is not None
            assert (row["name"], row["sha256"], row["min_compatible"]) == (
                migration.name, migration.sha256, migration.min_compatible,
            )  # fmt: skip


async def test_only_what_is_new_is_applied(db: Scratch, folder: Path) -> None:
    await migrate(db.admin_dsn)
    (folder / "0099_later.sql").write_text(HEADER)
    with pytest.raises(MigrationError, match="without a gap"):
        await migrate(db.admin_dsn, folder=folder)
    (folder / "0099_later.sql").unlink()
    name = f"{len(OWN) + 1:04}_later"
    (folder / f"{name}.sql").write_text(HEADER + "CREATE TABLE record.later ();")
    assert await migrate(db.admin_dsn, folder=folder) == [name]
    async with db.connect() as admin:
        assert "record.later" in await tables(admin)
        owner = "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'record.later'::regclass"
        assert await admin.fetchval(owner) == Role.MIGRATE.value


async def test_several_at_once_apply_each_once(db: Scratch) -> None:
    done = await asyncio.gather(*(migrate(db.admin_dsn) for _ in range(4)))
    assert sorted(done, key=len) == [[], [], [], OWN]


async def test_several_at_once_make_the_database(postgres: EmbeddedPostgres) -> None:
    db = Scratch(postgres, f"scratch-{uuid4().hex}")
    try:
        done = await asyncio.gather(*(migrate(db.admin_dsn) for _ in range(4)))
        assert sorted(done, key=len) == [[], [], [], OWN]
    finally:
        admin = await asyncpg.connect(postgres.admin_dsn())
        await admin.execute(f'DROP DATABASE IF EXISTS "{db.name}" WITH (FORCE)')
        await admin.close()


async def test_an_edited_file_is_refused_and_nothing_new_is_applied(db: Scratch, folder: Path) -> None:
    await migrate(db.admin_dsn)
    edited = folder / f"{OWN[0]}.sql"
    edited.write_text(edited.read_text() + "-- a thought\n")
    (folder / f"{len(OWN) + 1:04}_later.sql").write_text(HEADER)
    with pytest.raises(MigrationError, match=f"{OWN[0]} was edited after it was applied: restore it and add a new one"):
        await migrate(db.admin_dsn, folder=folder)
    assert await versions(db) == list(range(1, len(OWN) + 1))


async def test_one_that_fails_leaves_nothing_and_can_be_repaired(db: Scratch, folder: Path) -> None:
    name = f"{len(OWN) + 1:04}_broken"
    path = folder / f"{name}.sql"
    path.write_text(HEADER + "CREATE TABLE record.half ();\nSELECT 1/0;\n")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(db.admin_dsn, folder=folder)
    assert await versions(db) == list(range(1, len(OWN) + 1))
    async with db.connect() as admin:
        assert "record.half" not in await tables(admin)
    path.write_text(HEADER + "CREATE TABLE record.half ();\n")
    assert await migrate(db.admin_dsn, folder=folder) == [name]


async def test_an_older_version_leaves_a_newer_database_alone(db: Scratch, folder: Path) -> None:
    (folder / f"{len(OWN) + 1:04}_later.sql").write_text(HEADER)
    await migrate(db.admin_dsn, folder=folder)
    assert await migrate(db.admin_dsn) == []
    assert await versions(db) == list(range(1, len(OWN) + 2))


async def test_a_bad_database_name_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(MigrationError, match="1 to 63 letters"):
        await migrate(postgres.admin_dsn().replace("/lictor?", '/bad"name?'))


async def test_passwords_are_set_for_the_roles_that_are_named(db: Scratch) -> None:
    stored = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'lictor%' AND rolpassword IS NOT NULL"
    secret = "it's \\ a % secret"
    try:
        await migrate(db.admin_dsn, {Role.WEBHOOK.value: secret})
        async with db.connect() as admin:
            first = await admin.fetch(stored)
            assert [row["rolname"] for row in first] == [Role.WEBHOOK.value]
            assert secret not in first[0]["rolpassword"]
            await migrate(db.admin_dsn)
            assert await admin.fetch(stored) == first
    finally:
        async with db.connect() as admin:
            await admin.execute(f"ALTER ROLE {Role.WEBHOOK} PASSWORD NULL")


async def test_an_administrator_who_is_no_superuser_can_migrate() -> None:
    """As on a managed Postgres. The roles must be new, so the server is."""
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as server:
        admin = await asyncpg.connect(server.admin_dsn())
        await admin.execute("CREATE ROLE master LOGIN CREATEROLE CREATEDB; ALTER DATABASE lictor OWNER TO master")
        await admin.close()
        assert await migrate(server.dsn("master")) == OWN
        assert await migrate(server.dsn("master")) == []
        for role in LOGIN_ROLES:
            async with Database.opened(PostgresTarget(server.dsn()), role, size=1):
                pass
