"""A record of one's own whose clock stands: what its machine service's roles take for the time is what a test says it is.

Their search path has another `now()` before Postgres's own. Triggers and defaults go by the real time, so a test's is later.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.record import OwnRecord, scratch
from tests.helpers.suite import Suite, running_suite

_FAKED: Final = """
    CREATE SCHEMA faked;
    CREATE TABLE faked.clock (at timestamptz NOT NULL);
    INSERT INTO faked.clock VALUES (pg_catalog.now() + interval '1 h');
    CREATE FUNCTION faked.now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM faked.clock';
    CREATE FUNCTION faked.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM faked.clock';
    GRANT USAGE ON SCHEMA faked TO PUBLIC;
    GRANT SELECT ON faked.clock TO PUBLIC;
"""


@dataclass(frozen=True)
class Standstill:
    """A suite whose machine service lives at a time that only the test moves."""

    suite: Suite

    async def now(self) -> datetime:
        async with self.suite.admin() as conn:
            return await conn.fetchval("SELECT at FROM faked.clock")

    async def at(self, moment: datetime) -> None:
        """It is `moment` now."""
        async with self.suite.admin() as conn:
            await conn.execute("UPDATE faked.clock SET at = $1", moment)

    async def passes(self, span: timedelta) -> datetime:
        """It is later; returns what time."""
        moment = await self.now() + span
        await self.at(moment)
        return moment


@asynccontextmanager
async def standstill(postgres: EmbeddedPostgres, folder: Path, **more: Any) -> AsyncGenerator[Standstill]:
    """A suite of its own on a database of its own."""
    async with scratch(postgres) as made:
        async with made.connect() as conn:
            await conn.execute(_FAKED)
            for role in (Role.MACHINE, Role.MACHINE_WORKER):
                await conn.execute(f"ALTER ROLE {role} IN DATABASE {made.name} SET search_path = faked, pg_catalog")
        async with running_suite(OwnRecord(made), folder, **more) as suite:
            yield Standstill(suite)
