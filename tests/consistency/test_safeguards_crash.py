"""The epoch: after a crash Postgres gives transaction ids a second time, and a tail that does not notice takes a new change
for one that it has seen."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from shared.db.migrate import migrate
from shared.embedded.postgres import DATABASE, EmbeddedPostgres
from shared.errors import DomainError
from shared.freshness.poll import Polled
from shared.freshness.snapshot import Stamp
from tests.consistency.stage import Cast, Process, StageTail, acting, process_on
from tests.helpers.embedded import state_directory
from tests.helpers.record import Scratch
from tests.helpers.serving import until


class Trusting(StageTail):
    """The safeguard off: whichever epoch it is, ids mean the same."""

    def _why_drop(self, polled: Polled, asked_at: float) -> str | None:
        why = super()._why_drop(polled, asked_at)
        return None if why == "epoch" else why

    def _is_foreign(self, stamp: Stamp) -> bool:
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="fragile")
async def _fragile() -> AsyncGenerator[Scratch]:
    """A record on a server of its own, which the tests let crash."""
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as server:
        await migrate(server.admin_dsn())
        made = Scratch(server, DATABASE)
        async with made.connect() as admin:
            await admin.execute("ALTER SYSTEM SET autovacuum = off")  # it would write what is to be lost
            await admin.execute("SELECT pg_reload_conf()")
        yield made


async def lost_commit(cast: Cast) -> tuple[int, int]:
    """A transaction whose commit is told, and not on disk yet: its id, and the process that keeps it from getting there."""
    async with cast.scratch.connect() as conn:
        writer: int = await conn.fetchval("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        os.kill(writer, signal.SIGSTOP)
        await conn.execute("SET synchronous_commit = off")
        async with conn.transaction():
            await cast.run("UPDATE license.product SET code = 'LOST' WHERE account_id = $1", conn)
            xid = int(await conn.fetchval("SELECT pg_current_xact_id()::text"))
    return xid, writer


async def after_recovery(made: Scratch) -> asyncpg.Connection:
    """A connection, once Postgres lets somebody in again."""
    found: list[asyncpg.Connection] = []

    async def connected() -> bool:
        try:
            found.append(await asyncpg.connect(made.dsn("postgres")))
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    await until(connected, 20)
    return found[0]


async def polled_again(process: Process) -> None:
    """Its connection is gone, and it makes another one."""
    await until(process.tail.poll)


@pytest.mark.parametrize(("tail_type", "seen"), [(StageTail, "revoked"), (Trusting, "active")])
async def test_a_crash_ends_the_epoch(fragile: Scratch, tail_type: type[StageTail], seen: str) -> None:
    async with acting(fragile) as cast, process_on(fragile, tail_type=tail_type) as one:
        await cast.learned_by(one)
        lost, writer = await lost_commit(cast)
        await one.poll()
        assert one.tail.state.stamp.snapshot.sees(lost)
        await cast.status_by(one)
        assert cast.held_by(one) == "active"
        os.kill(writer, signal.SIGKILL)  # Postgres ends all its processes, and recovers from what is on disk
        await until(cast.admin.is_closed)
        admin = await after_recovery(fragile)
        again = replace(cast, admin=admin)
        while True:
            async with admin.transaction():
                xid = int(await admin.fetchval("SELECT pg_current_xact_id()::text"))
                if xid == lost:
                    await again.revoke()
                    break
            assert xid < lost, "the commit was on disk"
        await polled_again(one)
        await until(lambda: loads_work(again, one))
        assert await again.status_by(one) == seen
        await admin.close()


async def loads_work(cast: Cast, process: Process) -> bool:
    """Connections that the crash has closed are replaced as they are used."""
    try:
        await cast.status_by(process)
    except DomainError:
        return False
    return True


async def test_a_clean_restart_ends_no_epoch(fragile: Scratch) -> None:
    async with acting(fragile) as cast, process_on(fragile) as one:
        await cast.learned_by(one)
        epoch = one.tail.state.stamp.epoch
        await asyncio.to_thread(fragile.postgres.restart)
        await polled_again(one)
        assert one.tail.state.stamp.epoch == epoch
        assert cast.held_by(one) == "active"
