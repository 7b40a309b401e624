"""`record.process`: who serves is counted, and each process takes its share of a rate."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from lictor.account.v1.account_service_pb2 import WhoAmIRequest

from shared.db.faults import record_unreachable
from shared.db.pool import Database, PostgresTarget
from shared.db.processes import ProcessRow
from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from shared.rpc.share import Share
from tests.helpers.builders import refused, send
from tests.helpers.embedded import state_directory
from tests.helpers.record import Scratch, scratch
from tests.helpers.serving import TRANSPORTS, serving, until

OWN_ROLES = (Role.LICENSE, Role.ENTITLEMENT, Role.MACHINE, Role.WEBHOOK)


@pytest_asyncio.fixture(loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
        yield made


async def ids(db: Scratch) -> list[str]:
    async with db.connect() as conn:
        return [row["process_id"] for row in await conn.fetch("SELECT process_id FROM record.process ORDER BY 1")]


async def age(db: Scratch, row: ProcessRow, seconds: float) -> None:
    """Lets time pass for one row."""
    async with db.connect() as conn:
        await conn.execute(
            "UPDATE record.process SET seen_at = seen_at - make_interval(secs => $2) WHERE process_id = $1",
            row.process_id,
            seconds,
        )


@pytest.mark.parametrize("role", OWN_ROLES)
async def test_a_process_is_counted_from_its_first_beat_until_it_leaves(db: Scratch, role: Role) -> None:
    async with Database.opened(PostgresTarget(db.dsn()), role, size=2) as own:
        first, second = ProcessRow(own, "license"), ProcessRow(own, "license")
        assert await first.beat() == 1
        assert await second.beat() == 2
        assert await first.beat() == 2
        assert await first.beat() == 2, "a row is freshened and not made again"
        await second.leave()
        assert await first.beat() == 1
        assert await ids(db) == [first.process_id]


@pytest.mark.parametrize(
    ("mine", "others", "counted"),
    [
        ("license", ["license", "license"], 3),
        ("license", ["entitlement", "machine", "webhook"], 1),
        ("license", ["all"], 2),
        ("all", ["license", "machine", "all"], 4),
    ],
)
async def test_those_count_that_serve_the_same(db: Scratch, mine: str, others: list[str], counted: int) -> None:
    async with Database.opened(PostgresTarget(db.dsn()), Role.LICENSE, size=2) as own:
        for target in others:
            await ProcessRow(own, target).beat()
        assert await ProcessRow(own, mine).beat() == counted


async def test_a_row_is_believed_for_30_seconds_and_then_swept(db: Scratch) -> None:
    async with Database.opened(PostgresTarget(db.dsn()), Role.LICENSE, size=2) as own:
        alive, gone = ProcessRow(own, "license"), ProcessRow(own, "license")
        await gone.beat()
        await age(db, gone, 28)
        assert await alive.beat() == 2
        await age(db, gone, 3)
        assert await alive.beat() == 1
        assert await ids(db) == [alive.process_id]
        assert await gone.beat() == 2, "one that was only paused is back with its next beat"


async def test_processes_that_wake_together_do_not_wait_for_each_other(db: Scratch) -> None:
    """Each finds its own row stale, and those of all others; in one transaction, sweep and beat end in deadlocks."""
    async with Database.opened(PostgresTarget(db.dsn()), Role.LICENSE, size=8) as own, db.connect() as admin:
        rows = [ProcessRow(own, "license") for _ in range(8)]
        for _ in range(150):
            await asyncio.gather(*(row.beat() for row in rows))
            await admin.execute("UPDATE record.process SET seen_at = seen_at - interval '31 s'")
        await asyncio.gather(*(row.beat() for row in rows))
        assert {await row.beat() for row in rows} == {len(rows)}


async def test_the_start_is_told_by_the_records_time(db: Scratch) -> None:
    async with Database.opened(PostgresTarget(db.dsn()), Role.LICENSE, size=2) as own:
        row = ProcessRow(own, "license")
        await row.beat()
        async with db.connect() as conn:
            about = await conn.fetchrow(
                "SELECT target, clock_timestamp() - started_at AS up, clock_timestamp() - seen_at AS ago "
                "FROM record.process"
            )
        assert about is not None
        assert about["target"] == "license"
        assert 0 <= about["ago"].total_seconds() <= about["up"].total_seconds() < 30


@pytest.mark.parametrize("role", [Role.FACTS, Role.LICENSE_WORKER])
async def test_other_roles_do_not_reach_it_and_services_change_no_more_than_the_time(db: Scratch, role: Role) -> None:
    async with db.connect(role) as conn:
        for statement in ("SELECT FROM record.process", "DELETE FROM record.process"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)
    async with db.connect(Role.LICENSE) as conn:
        for column in ("process_id", "target", "started_at"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(f"UPDATE record.process SET {column} = {column}")


async def test_the_last_count_stands_while_the_record_is_away() -> None:
    answers: list[int | Exception] = [3, record_unreachable(), ValueError("a fault"), 5]
    asked, left = asyncio.Semaphore(0), asyncio.Event()
    seen: list[int] = []
    share = Share()

    async def count() -> int:
        seen.append(share.live)
        asked.release()
        answer = answers[min(len(seen), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def leave() -> None:
        left.set()
        raise record_unreachable()

    async with share.kept(count, leave, 0.001):
        for _ in range(5):
            await asked.acquire()
    assert seen[:5] == [1, 3, 3, 3, 5]
    assert left.is_set()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_two_processes_take_half_each(transport: str, tmp_path: Path) -> None:
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as postgres:
        async with serving(postgres, tmp_path, transport, processes="2") as served:
            suite = served.suite
            await until(lambda: served.log().count("share of the rates changed") >= 2, 30)
            async with suite.world() as world, suite.client(suite.operator_key) as operator:
                await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 2})
                await send(suite, WhoAmIRequest(), world.test_key)  # through one connection, so to one process
                found = await refused(suite, WhoAmIRequest(), world.test_key)
                assert found.reason == "RATE_LIMITED"
                assert found.retry_ms is not None
                assert 500 < found.retry_ms <= 1000, "one a second each, and not two"
            async with suite.admin() as conn:
                assert await conn.fetchval("SELECT count(*) FROM record.process WHERE target = 'all'") == 2
            os.kill(served.process.pid, signal.SIGTERM)
            assert await served.ended() == 0, served.log()
            async with suite.admin() as conn:
                assert await conn.fetchval("SELECT count(*) FROM record.process") == 0, "they left in order"
