"""The keeper of the log: what no process can need any more goes, and nothing that one may still need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio

from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from shared.freshness import keeper
from tests.consistency.stage import Cast, process_on
from tests.helpers.record import Scratch
from tests.helpers.serving import until

BY_TIME: Final = "DELETE FROM record.change_log WHERE at < clock_timestamp() - make_interval(mins => 30)"
"""The safeguard off: a row's time is that of its statement, and its transaction may commit much later."""
BY_XMAX: Final = """
    DELETE FROM record.change_log AS c USING record.tail_base AS b WHERE c.xid < pg_snapshot_xmax(b.snapshot)
       AND b.at < clock_timestamp() - make_interval(mins => 30)
"""
"""Half of it off: a transaction that was open when the base was stored is below its end too."""


@pytest_asyncio.fixture(loop_scope="session", name="worker")
async def _worker(db: Scratch) -> AsyncGenerator[Database]:
    """The role that the keeper has, on a log without rows."""
    async with db.connect() as admin:
        await admin.execute("TRUNCATE record.change_log, record.tail_base")
    async with Database.opened(PostgresTarget(db.dsn()), Role.LICENSE_WORKER) as opened:
        yield opened


async def age(conn: asyncpg.Connection, minutes: int) -> None:
    """Lets the log and all that is stored for it become older."""
    for table in ("tail_base", "change_log"):
        await conn.execute(f"UPDATE record.{table} SET at = at - make_interval(mins => $1)", minutes)


async def count(conn: asyncpg.Connection, table: str) -> int:
    return await conn.fetchval(f"SELECT count(*) FROM record.{table}")


async def log(conn: asyncpg.Connection, rows: int = 1, *, xid: str = "pg_current_xact_id()") -> None:
    """Logs changes of nothing."""
    await conn.execute(
        f"INSERT INTO record.change_log (xid, kind, key) SELECT {xid}, 'license', 'n' || n FROM generate_series(1, $1) AS n",
        rows,
    )


async def test_a_base_is_stored_once_a_minute(db: Scratch, worker: Database) -> None:
    async with db.connect() as admin:
        await asyncio.gather(keeper.keep(worker), keeper.keep(worker))
        await keeper.keep(worker)
        stored = await count(admin, "tail_base")
        assert 1 <= stored <= 2, "two processes that begin at once do no harm"
        await age(admin, 1)
        await keeper.keep(worker)
        assert await count(admin, "tail_base") == stored + 1
        assert await admin.fetchval("SELECT bool_and(b.epoch = e.epoch) FROM record.tail_base AS b, record.epoch AS e")


@pytest.mark.parametrize(("minutes", "kept"), [(0, True), (29, True), (31, False)])
async def test_rows_go_half_an_hour_after_all_could_see_them(
    db: Scratch, worker: Database, minutes: int, kept: bool
) -> None:
    async with db.connect() as admin:
        await log(admin, 3)
        assert await keeper.keep(worker) == 0
        await age(admin, minutes)
        await log(admin)
        assert await keeper.keep(worker) == (0 if kept else 3)
        assert await count(admin, "change_log") == (4 if kept else 1)


async def test_a_base_that_does_not_see_a_row_lets_none_go_however_old_it_is(db: Scratch, worker: Database) -> None:
    async with db.connect() as admin:
        await keeper.keep(worker)
        await log(admin)
        await age(admin, 45)
        assert await keeper.keep(worker) == 0
        await age(admin, 31)  # now the base that sees it is old enough
        assert await keeper.keep(worker) == 1


@pytest.mark.parametrize(
    ("trim", "seen"), [(None, "revoked"), (BY_TIME, "active"), (BY_XMAX, "active")], ids=["kept", "by time", "by xmax"]
)
async def test_the_row_of_a_long_transaction_is_kept_until_all_have_seen_it(
    db: Scratch, cast: Cast, worker: Database, trim: str | None, seen: str
) -> None:
    async with process_on(db) as one, db.connect() as slow:
        await cast.learned_by(one)
        began = slow.transaction()
        await began.start()
        await cast.revoke(slow)
        await one.poll()
        await log(cast.admin)  # a transaction that began later, and has ended
        await keeper.keep(worker)  # a base from while the other was open
        await slow.execute("UPDATE record.change_log SET at = at - interval '31 min' WHERE xid = pg_current_xact_id()")
        await age(cast.admin, 31)
        await began.commit()
        if trim is None:
            await keeper.keep(worker)
        else:
            await cast.admin.execute(trim)
        await one.poll()
        assert await cast.status_by(one) == seen


async def test_a_full_log_is_trimmed_in_batches(db: Scratch, worker: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BATCH", 4)
    async with db.connect() as admin:
        await log(admin, 11)
        await keeper.keep(worker)
        await age(admin, 31)
        assert await keeper.keep(worker) == 11
        assert await count(admin, "change_log") == 0


async def test_rows_of_a_restored_cluster_go_at_once(db: Scratch, cast: Cast, worker: Database) -> None:
    """Their ids are those of another cluster: they would be told as changes for as long as the ids are ahead."""
    async with process_on(db) as one:
        await cast.learned_by(one)
        await log(cast.admin, 5, xid="'9000000000000000000'")
        await log(cast.admin, 2)
        await one.poll()
        assert cast.held_by(one) == "active"
        assert await keeper.keep(worker) == 5
        assert await count(cast.admin, "change_log") == 2


async def test_a_base_of_a_restored_cluster_is_none(db: Scratch, cast: Cast, worker: Database) -> None:
    """It came along with the epoch, and sees ids that this cluster has not given yet."""
    await cast.admin.execute(
        "INSERT INTO record.tail_base (epoch, snapshot, at) SELECT epoch, '9000000:9000000:', clock_timestamp() - age "
        "FROM record.epoch, unnest(ARRAY[interval '31 min', interval '5 min']) AS age"
    )
    await log(cast.admin)
    assert await keeper.keep(worker) == 0, "somebody may still need what was logged just now"
    async with process_on(db) as one:
        await cast.learned_by(one)


async def test_bases_are_kept_for_an_hour_and_for_one_epoch(db: Scratch, worker: Database) -> None:
    async with db.connect() as admin:
        await keeper.keep(worker)
        await age(admin, 59)
        await keeper.keep(worker)
        assert await count(admin, "tail_base") == 2
        await age(admin, 2)
        await keeper.keep(worker)
        assert await count(admin, "tail_base") == 2, "the first one went, and another one is stored"
        await admin.execute("UPDATE record.epoch SET epoch = gen_random_uuid()")
        await keeper.keep(worker)
        assert await count(admin, "tail_base") == 1


async def test_without_an_epoch_nothing_is_stored_and_nothing_goes(db: Scratch, worker: Database) -> None:
    async with db.connect() as admin:
        await log(admin)
        await keeper.keep(worker)
        await age(admin, 31)
        await admin.execute("DELETE FROM record.epoch")
        assert await keeper.keep(worker) == 0
        assert await count(admin, "change_log") == 1
        assert await count(admin, "tail_base") == 1
        await admin.execute("INSERT INTO record.epoch DEFAULT VALUES")


async def test_rows_of_an_older_epoch_go_half_an_hour_after_it_ended(db: Scratch, worker: Database) -> None:
    async with db.connect() as admin:
        await log(admin, 2)
        await keeper.keep(worker)
        await age(admin, 31)
        await admin.execute("UPDATE record.epoch SET epoch = gen_random_uuid()")
        assert await keeper.keep(worker) == 0, "the base was of the other epoch"
        await age(admin, 31)
        assert await keeper.keep(worker) == 2


async def test_the_keeper_goes_on_after_a_failure(
    db: Scratch, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "EVERY_S", 0.001)
    async with db.connect() as admin:
        await admin.execute("ALTER TABLE record.tail_base RENAME TO gone")
        keeping = asyncio.create_task(keeper.keep_forever(worker))
        tried = asyncio.Event()
        error = keeper._log.error  # pyright: ignore[reportPrivateUsage]

        def heard(event: str, **more: Any) -> None:
            tried.set()
            error(event, **more)

        monkeypatch.setattr(keeper._log, "error", heard)  # pyright: ignore[reportPrivateUsage]
        await tried.wait()
        await admin.execute("ALTER TABLE record.gone RENAME TO tail_base")

        async def stored() -> bool:
            return await count(admin, "tail_base") > 0

        await until(stored)
        keeping.cancel()
        await asyncio.wait([keeping])


@pytest.mark.parametrize("most", [10, keeper.BATCH])
async def test_trimming_finds_rows_by_indexes(db: Scratch, worker: Database, most: int) -> None:
    """However many rows there are that must stay."""
    async with db.connect() as admin:
        await log(admin, 30_000)
        await keeper.keep(worker)
        await age(admin, 31)
        await log(admin, 30_000)
        await admin.execute("ANALYZE record.change_log, record.tail_base")
        await admin.execute(f"PREPARE trim (int, bigint) AS {keeper.TRIM}")
        plan = await admin.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE trim ({keeper.KEPT_MINUTES}, {most})")
        read = [node for node in nodes(json.loads(plan)[0]["Plan"]) if node.get("Relation Name") == "change_log"]
        assert {node["Node Type"] for node in read} - {"ModifyTable"} <= {"Index Scan", "Bitmap Heap Scan"}


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(one for child in plan.get("Plans", []) for one in nodes(child))]
