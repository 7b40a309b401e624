"""A record whose time stands still until a test moves it: its functions of time are found before those of Postgres."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import asyncpg

from shared.db.migrate import migrate
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.record import Scratch, scratch

NAMES: Final = ("clock_timestamp", "statement_timestamp", "transaction_timestamp", "now")
_BEGUN: Final = """
    CREATE SCHEMA told;
    GRANT USAGE ON SCHEMA told TO PUBLIC;
    CREATE TABLE told.moment (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), at timestamptz NOT NULL);
    GRANT SELECT ON told.moment TO PUBLIC;
"""


@dataclass
class RecordTime:
    """What the record takes for the time. All that is decided there, and all that it writes down, goes by it."""

    admin: asyncpg.Connection
    now: datetime

    async def move(self, to: datetime) -> None:
        await self.admin.execute("UPDATE told.moment SET at = $1", to)
        self.now = to


@asynccontextmanager
async def timeless(postgres: EmbeddedPostgres) -> AsyncGenerator[tuple[Scratch, RecordTime]]:
    """A new database, migrated; it begins at the time that it really is, in whole seconds."""
    async with scratch(postgres, migrated=False) as made, made.connect() as admin:
        now = datetime.now(UTC).replace(microsecond=0)
        await admin.execute(_BEGUN)
        await admin.execute("INSERT INTO told.moment (at) VALUES ($1)", now)
        for name in NAMES:
            await admin.execute(
                f"CREATE FUNCTION told.{name}() RETURNS timestamptz STABLE LANGUAGE sql "
                "BEGIN ATOMIC SELECT m.at FROM told.moment AS m; END"
            )
        await admin.execute(f"ALTER DATABASE {made.name} SET search_path = told, pg_catalog")
        await migrate(made.admin_dsn)
        yield made, RecordTime(admin, now)
