"""Each safeguard of what may enter memory: with it nothing old and no mix of two states is answered; without it they show."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from shared.db.pool import PostgresTarget, connected
from shared.db.roles import Role
from shared.facts.license import Wanted
from shared.freshness.changes import ChangeMap
from shared.freshness.epoch import EPOCH
from shared.freshness.lease import LeaseTerms
from shared.freshness.poll import Polled, RecordSource
from shared.freshness.snapshot import Snapshot, Stamp
from shared.freshness.tail import Tail
from tests.consistency.stage import MARK_BOTH, Cast, Hostile, StageTail, acting, marks, process_on
from tests.helpers.record import Scratch


async def second_license(cast: Cast) -> Wanted:
    """Another license of the same policy: a decision with a root of its own."""
    row = dict(cast.rows["license.license"])
    names = ", ".join(name for name in row if name not in ("license_id", "external_id"))
    await cast.run(
        f"INSERT INTO license.license (license_id, external_id, {names}) SELECT license_id || '2', 'two', {names} "
        "FROM license.license WHERE account_id = $1"
    )
    return Wanted((), cast.license_id + "2")


class LatestAlone(ChangeMap):
    """The safeguard off: of the transactions that changed a fact the last one counts."""

    def allows(self, key: str, read_at: Snapshot) -> bool:
        xids = self._xids.get(key)
        return xids is None or read_at.sees(max(xids))


class LatestAloneTail(StageTail):
    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type] - whatever a tail is given
        self._changes = LatestAlone()


@pytest.mark.parametrize(("tail_type", "seen"), [(StageTail, True), (LatestAloneTail, False)])
async def test_every_transaction_that_changed_a_fact_counts(
    db: Scratch, cast: Cast, tail_type: type[Tail], seen: bool
) -> None:
    """The tiers of a product are one fact. Who began first commits last, and in between a load reads."""
    add = (
        "INSERT INTO license.tier (account_id, mode, tier_id, external_id, product_id, slug, display_name, position, labels, "
        "metadata, created_at, updated_at) SELECT account_id, mode, $2, $2, product_id, $2, $2, $3, labels, metadata, "
        "created_at, updated_at FROM license.product WHERE account_id = $1"
    )
    account_id = cast.tenant.account_id
    async with process_on(db, tail_type=tail_type) as one, db.connect() as first, db.connect() as second:
        began = first.transaction()
        await began.start()
        await first.execute(add, account_id, "first", 101)
        await second.execute(add, account_id, "second", 102)
        one.db.replies.shut()
        loading = asyncio.create_task(cast.seen_by(one))
        await one.db.replies.reached()
        await began.commit()
        await one.poll()  # tells of both
        one.db.replies.open()
        await loading
        loaded = await cast.seen_by(one)
        assert loaded.facts is not None
        assert ("first" in loaded.facts.tiers, "second" in loaded.facts.tiers) == (seen, True)


class Hasty(StageTail):
    """The safeguard off: what knows more than the tail is let in."""

    def _is_ahead(self, stamp: Stamp) -> bool:
        return False


@pytest.mark.parametrize(("tail_type", "seen"), [(StageTail, (False, False)), (Hasty, (False, True))])
async def test_a_load_ahead_of_the_tail_is_not_mixed_with_memory(
    db: Scratch, cast: Cast, tail_type: type[Tail], seen: tuple[bool, bool]
) -> None:
    other = await second_license(cast)
    async with process_on(db, tail_type=tail_type) as one:
        await cast.learned_by(one)
        await cast.run(MARK_BOTH)
        loaded = await one.licenses.one(cast.tenant, other)  # of the new state, which the tail does not know
        assert marks(loaded) == (True, True)
        assert marks(one.licenses.held(cast.tenant, cast.wanted)) == seen
        await one.poll()
        assert marks(await cast.seen_by(one)) == (True, True)


async def test_a_load_ahead_of_the_tail_is_held_from_the_next_poll_on(db: Scratch, cast: Cast) -> None:
    async with process_on(db) as one:
        await cast.revoke()
        assert await cast.status_by(one) == "revoked"
        assert cast.held_by(one) is None
        await one.poll()
        assert cast.held_by(one) == "revoked"
        assert one.db.loads == 1


class Newcomer(StageTail):
    """The safeguard off: what is older than all that the process knows is let in."""

    def _is_before_base(self, stamp: Stamp) -> bool:
        return False


@pytest.mark.parametrize(("tail_type", "seen"), [(StageTail, "revoked"), (Newcomer, "active")])
async def test_a_new_process_takes_nothing_from_before_its_base(
    db: Scratch, cast: Cast, tail_type: type[Tail], seen: str
) -> None:
    """Its tail never told it of the change, and never will."""
    beside = Hostile()
    async with process_on(db, beside=beside) as early:
        await cast.status_by(early)
        await early.poll()
    await cast.revoke()
    async with process_on(db, beside=beside, tail_type=tail_type) as late:
        assert await cast.status_by(late) == seen


async def test_with_a_stored_base_a_new_process_takes_what_has_not_changed(db: Scratch, cast: Cast) -> None:
    beside = Hostile()
    async with acting(db) as other:
        await db_base(cast.admin)
        async with process_on(db, beside=beside) as early:
            for one in (cast, other):
                await one.status_by(early)
            await early.poll()
        await cast.revoke()
        async with process_on(db, beside=beside) as late:
            assert await other.status_by(late) == "active"
            assert late.db.loads == 0, "it is found beside the record"
            assert await cast.status_by(late) == "revoked"
            assert late.db.loads == 1
    await cast.admin.execute("DELETE FROM record.tail_base")


async def db_base(admin: asyncpg.Connection) -> None:
    await admin.execute(
        "INSERT INTO record.tail_base (epoch, snapshot) SELECT epoch, pg_current_snapshot() FROM record.epoch"
    )


class Cursor:
    """The safeguard off: polls by the number of the last row that it has seen."""

    def __init__(self, conn: asyncpg.Connection) -> None:
        self._conn = conn
        self._last: int | None = None

    async def base(self, window: timedelta) -> Snapshot | None:
        return None

    async def poll(self, since: Snapshot | None, most: int, within_s: float) -> Polled:
        row = await self._conn.fetchrow(
            f"SELECT (SELECT system_identifier FROM pg_control_system()), {EPOCH}, "
            "pg_current_snapshot()::text, clock_timestamp(), (SELECT coalesce(max(revision), 0) FROM record.change_log)"
        )
        assert row is not None
        rows = await self._conn.fetch(
            "SELECT kind, kind || ':' || key AS key, xid::text::bigint AS xid FROM record.change_log "
            "WHERE revision > $1 AND revision <= $2",
            row[4] if self._last is None else self._last, row[4],
        )  # fmt: skip
        self._last = row[4]
        kinds, keys, xids = ([one[name] for one in rows] for name in ("kind", "key", "xid"))
        stamp = Stamp(row[0], row[1], Snapshot.parse(row[2]))
        return Polled(stamp, row[3], LeaseTerms(250, 250, False), kinds, keys, xids)

    async def close(self) -> None:
        await self._conn.close()


@pytest.mark.parametrize(("by_cursor", "seen"), [(False, "revoked"), (True, "active")])
async def test_a_poll_finds_rows_that_commit_out_of_order(db: Scratch, cast: Cast, by_cursor: bool, seen: str) -> None:
    conn = await connected(PostgresTarget(db.dsn()), Role.FACTS)
    source = Cursor(conn) if by_cursor else RecordSource(lambda: as_it_is(conn))
    async with process_on(db, source=source) as one, db.connect() as slow:
        await cast.learned_by(one)
        began = slow.transaction()
        await began.start()
        await cast.revoke(slow)
        await cast.run(
            "UPDATE license.account SET status = 'suspended' WHERE account_id = $1"
        )  # a later row, and earlier
        await one.poll()
        await began.commit()
        await one.poll()
        assert await cast.status_by(one) == seen


async def as_it_is(conn: asyncpg.Connection) -> asyncpg.Connection:
    return conn
