"""A process does not start where it could harm: each refusal says why, and names the way out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from shared.db.migrate import MigrationError, load_migrations
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.roles import LOGIN_ROLES, Role, RoleRefusedError
from shared.embedded.postgres import EmbeddedPostgres
from shared.errors import DomainError
from tests.helpers.record import Scratch, scratch

PLAIN_ROLES = "Serve as the plain roles that `lictor migrate` makes"
OWN_VERSION = load_migrations()[-1].version


@dataclass(frozen=True)
class NamedRole:
    """A role that the suite does not know, as one that an administrator has made."""

    value: str


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
        yield made


async def opens(db: Scratch, role: Role | NamedRole) -> None:
    async with Database.opened(PostgresTarget(db.dsn()), cast("Role", role), size=1):
        pass


@asynccontextmanager
async def role_with(db: Scratch, *statements: str) -> AsyncGenerator[NamedRole]:
    """A new role, then statements in which {role} is its name. Gone in the end."""
    name = f"test_{uuid4().hex}"
    async with db.connect() as admin:
        await admin.execute(f"CREATE ROLE {name} LOGIN")
        await admin.execute(f"GRANT USAGE ON SCHEMA record TO {name}")
        await admin.execute(f"GRANT SELECT ON record.migration TO {name}")
        try:
            for statement in statements:
                await admin.execute(statement.format(role=name))
            yield NamedRole(name)
        finally:
            await admin.execute(f"DROP OWNED BY {name}")
            await admin.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("role", LOGIN_ROLES)
async def test_each_serving_role_opens(db: Scratch, role: Role) -> None:
    await opens(db, role)


async def test_a_plain_role_is_not_refused_for_its_name(db: Scratch) -> None:
    async with role_with(db) as role:
        await opens(db, role)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER ROLE {role} SUPERUSER", "is a superuser"),
        ("ALTER ROLE {role} BYPASSRLS", "has BYPASSRLS"),
        ("GRANT lictor_migrate TO {role}", "is a member of lictor_migrate"),
        ("GRANT lictor_migrate TO {role} WITH INHERIT FALSE", "is a member of lictor_migrate"),
        ("CREATE TABLE machine.mine (); ALTER TABLE machine.mine OWNER TO {role}", "owns tables of the record"),
        ("GRANT postgres TO {role}", "is a superuser, or can become one"),
    ],
)
async def test_a_powerful_role_is_refused(db: Scratch, statement: str, words: str) -> None:
    async with role_with(db, statement) as role:
        with pytest.raises(RoleRefusedError) as refusal:
            await opens(db, role)
    assert words.split(",", maxsplit=1)[0] in str(refusal.value)
    assert role.value in str(refusal.value)
    assert PLAIN_ROLES in str(refusal.value)


async def test_power_by_way_of_another_role_is_refused(db: Scratch) -> None:
    async with (
        role_with(db, "ALTER ROLE {role} BYPASSRLS") as strong,
        role_with(db, f"GRANT {strong.value} TO {{role}}") as between,
        role_with(db, f"GRANT {between.value} TO {{role}}") as role,
    ):
        with pytest.raises(RoleRefusedError, match="has BYPASSRLS"):
            await opens(db, role)


async def test_the_superuser_itself_is_refused(db: Scratch) -> None:
    with pytest.raises(RoleRefusedError, match="'postgres' is a superuser"):
        await opens(db, NamedRole("postgres"))


async def test_an_unmigrated_database_is_refused(postgres: EmbeddedPostgres, db: Scratch) -> None:
    async with scratch(postgres, migrated=False) as empty:
        with pytest.raises(
            MigrationError, match=rf"schema version 0, this version needs {OWN_VERSION}: run `lictor migrate`"
        ):
            await opens(empty, Role.LICENSE)


async def test_a_database_that_is_not_there_is_refused(db: Scratch) -> None:
    with pytest.raises(MigrationError, match="run `lictor migrate`"):
        await opens(Scratch(db.postgres, "scratch_never_made"), Role.LICENSE)


async def test_a_role_that_is_not_there_is_refused(db: Scratch) -> None:
    """As on a server that has never been migrated."""
    with pytest.raises(RoleRefusedError, match=r"test_never_made.*run `lictor migrate`"):
        await opens(db, NamedRole("test_never_made"))


async def test_a_database_behind_is_refused(postgres: EmbeddedPostgres) -> None:
    async with scratch(postgres) as db, db.connect() as admin:
        await admin.execute("DELETE FROM record.migration WHERE version = $1", OWN_VERSION)
        with pytest.raises(MigrationError, match=f"schema version {OWN_VERSION - 1}, .*run `lictor migrate`"):
            await opens(db, Role.LICENSE)


async def test_a_newer_database_is_served_while_it_says_so(postgres: EmbeddedPostgres) -> None:
    newer = "INSERT INTO record.migration (version, name, sha256, min_compatible) VALUES ($1, 'later', '', $2)"
    async with scratch(postgres) as db, db.connect() as admin:
        await admin.execute(newer, OWN_VERSION + 1, OWN_VERSION)
        await opens(db, Role.LICENSE)
        await admin.execute(newer, OWN_VERSION + 2, OWN_VERSION + 2)
        with pytest.raises(
            MigrationError, match=f"knows schema {OWN_VERSION + 2}, this one knows {OWN_VERSION}: upgrade"
        ):
            await opens(db, Role.LICENSE)


async def test_a_refused_start_leaves_no_connection(db: Scratch) -> None:
    with pytest.raises(RoleRefusedError):
        await opens(db, NamedRole("postgres"))
    async with db.connect() as admin:
        mine = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        for _ in range(50):
            if await admin.fetchval(mine, db.name) == 0:
                break
            await admin.execute("SELECT pg_sleep(0.02)")
        assert await admin.fetchval(mine, db.name) == 0


async def test_a_fault_of_ours_is_not_taken_for_a_record_that_is_away(db: Scratch) -> None:
    """A caller who is told UNAVAILABLE tries again, for nothing."""
    async with Database.opened(PostgresTarget(db.dsn()), Role.FACTS, size=1) as facts:
        with pytest.raises((ValueError, asyncpg.PostgresError)) as fault:
            await facts.load("SELECT $1::int", "not a number")
    assert not isinstance(fault.value, DomainError)


def test_passwords_are_read_by_role(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("# by hand\n\nlictor_license=a=b \nlictor_facts=\n")
    assert read_passwords(file) == {"lictor_license": "a=b ", "lictor_facts": ""}
    assert read_passwords(None) == {}
    file.write_text("lictor_license=x\nsecret\n")
    with pytest.raises(ValueError, match="line 2: expected `role=password`") as refusal:
        read_passwords(file)
    assert "secret" not in str(refusal.value)
