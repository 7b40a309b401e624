"""Applies the plain SQL migrations, forward only, once each, by one process at a time."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from shared.db.roles import LOGIN_ROLES, SCHEMAS, Role

FOLDER: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x11C7_0001
_HEADER: Final = re.compile(r"^-- min_compatible: (\d+)\n")
_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class MigrationError(Exception):
    """The database cannot be brought, or is not, to the state that this version needs; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name, its text, and the oldest version of the code that can run on its result."""

    version: int
    name: str
    sql: str
    min_compatible: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """The files in order. MigrationError when there are none, one is misnamed or has no
    `-- min_compatible:` line, or a number is missing.
    """
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        name = _NAME.fullmatch(path.name)
        if name is None:
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql")
        sql = path.read_text(encoding="utf-8")
        header = _HEADER.match(sql)
        if header is None:
            raise MigrationError(f"{path.name} does not begin with `-- min_compatible: N`")
        found.append(Migration(int(name[1]), path.stem, sql, int(header[1])))
    if not found:
        raise MigrationError(f"there are no migrations in {folder}: this installation is not whole")
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"migrations in {folder.name} are not numbered 0001, 0002, ... without a gap")
    return tuple(found)


async def migrate(admin_dsn: str, passwords: Mapping[str, str] | None = None, *, folder: Path = FOLDER) -> list[str]:
    """Makes database, roles and schemas where they are missing and applies what is new; returns the names applied.

    `admin_dsn` names a role that may create roles. `passwords` sets the login roles' passwords; None leaves them.
    """
    await _ensure_database(admin_dsn)
    conn = await asyncpg.connect(admin_dsn)
    try:
        # Polled, not waited for: a blocking lock would deadlock with the holder's CREATE INDEX CONCURRENTLY.
        while not await conn.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(0.2)
        await _ensure_roles(conn, passwords or {})
        return await _apply(conn, load_migrations(folder))
    finally:
        await conn.close()


async def _ensure_database(admin_dsn: str) -> None:
    try:
        conn = await asyncpg.connect(admin_dsn)
    except asyncpg.InvalidCatalogNameError:
        conn = await asyncpg.connect(admin_dsn, database="postgres")
        try:
            name = _database_name(admin_dsn)
            await conn.execute(f'CREATE DATABASE "{name}"')
        except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            pass  # another process made it meanwhile; the second error is of two that began at the same time
        finally:
            await conn.close()
        return
    await conn.close()


def _database_name(dsn: str) -> str:
    name = re.sub(r"\?.*$", "", dsn).rsplit("/", 1)[-1]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", name):
        raise MigrationError("the database's name must be 1 to 63 letters, digits, - or _")
    return name


async def _ensure_roles(conn: asyncpg.Connection, passwords: Mapping[str, str]) -> None:
    for role in Role:
        login = "LOGIN" if role in LOGIN_ROLES else "NOLOGIN"
        if not await conn.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role.value):
            await conn.execute(f"CREATE ROLE {role.value} {login} NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS")
        if role.value in passwords:
            quoted = await conn.fetchval("SELECT quote_literal($1)", passwords[role.value])
            await conn.execute(f"ALTER ROLE {role.value} PASSWORD {quoted}")
    await conn.execute(f"GRANT {Role.MIGRATE.value} TO CURRENT_USER")
    await conn.execute(f"GRANT {Role.VIEWS.value} TO {Role.MIGRATE.value}")  # which gives it the views it makes
    for schema in SCHEMAS:
        await conn.execute(f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {Role.MIGRATE.value}")


async def _apply(conn: asyncpg.Connection, migrations: tuple[Migration, ...]) -> list[str]:
    await conn.execute(f"SET ROLE {Role.MIGRATE.value}")
    await conn.execute(
        "CREATE TABLE IF NOT EXISTS record.migration (version int PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, "
        "min_compatible int NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    done = {row["version"]: row["sha256"] for row in await conn.fetch("SELECT version, sha256 FROM record.migration")}
    applied: list[str] = []
    for migration in migrations:
        if migration.version in done:
            if done[migration.version] != migration.sha256:
                raise MigrationError(f"{migration.name} was edited after it was applied: restore it and add a new one")
            continue
        async with conn.transaction():
            await conn.execute(migration.sql)
            await conn.execute(
                "INSERT INTO record.migration (version, name, sha256, min_compatible) VALUES ($1, $2, $3, $4)",
                migration.version, migration.name, migration.sha256, migration.min_compatible,
            )  # fmt: skip
        applied.append(migration.name)
    return applied


def no_database() -> MigrationError:
    """What to do where the database itself is not there."""
    return MigrationError("there is no such database: check its name, and run `lictor migrate`")


async def refuse_incompatible(conn: asyncpg.Connection) -> None:
    """Raises MigrationError when this version's code must not run on the database as it stands."""
    own = load_migrations()[-1].version
    try:
        row = await conn.fetchrow("SELECT max(version) AS version, max(min_compatible) AS oldest FROM record.migration")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.InsufficientPrivilegeError):
        row = None
    if row is None or row["version"] is None or row["version"] < own:
        at = 0 if row is None or row["version"] is None else row["version"]
        raise MigrationError(f"the database is at schema version {at}, this version needs {own}: run `lictor migrate`")
    if row["oldest"] > own:
        raise MigrationError(
            f"the database needs a version that knows schema {row['oldest']}, this one knows {own}: upgrade"
        )
