"""Each safeguard of what a decision reads: with it every answer is of one state, and as new as it must be; without it a mix
or the old state shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import asyncpg
import pytest

from shared.freshness.reader import Flight, Load, Look, Reader
from shared.freshness.token import Revision
from tests.consistency.stage import MARK_BOTH, Cast, Hostile, marks, process_on
from tests.helpers.record import Scratch
from tests.helpers.serving import until

T = TypeVar("T")


class Mixing(Reader):
    """The safeguard off: only what memory lacks is taken from a load."""

    async def _loaded(self, load: Callable[[], Awaitable[Load]]) -> Load:
        loaded = await super()._loaded(load)
        return replace(loaded, facts={key: self._memory.get(key) or fact for key, fact in loaded.facts.items()})


@pytest.mark.parametrize(("reader_type", "seen"), [(Reader, (True, True)), (Mixing, (True, False))])
async def test_a_decision_uses_one_statement_or_memory_and_never_both(
    db: Scratch, cast: Cast, reader_type: type[Reader], seen: tuple[bool, bool]
) -> None:
    async with process_on(db, reader_type=reader_type) as one:
        await cast.learned_by(one)
        one.memory.drop(f"license:{cast.tenant.account_id}/TEST/{cast.license_id}")  # there was no place for it
        await cast.run(MARK_BOTH)
        for loaded in [await cast.seen_by(one), *await one.licenses.many(cast.tenant, [cast.wanted])]:
            assert marks(loaded) == seen


class Joining(Reader):
    """The safeguard off: whoever joins a load takes what it has read."""

    async def _join(self, flight: Flight, look: Look[T], load: Callable[[], Awaitable[Load]]) -> T:
        found = look((await asyncio.shield(flight.read)).view())
        assert found is not None
        return found


@pytest.mark.parametrize(("reader_type", "seen"), [(Reader, "revoked"), (Joining, "active")])
async def test_who_joins_a_load_that_began_before_does_not_take_its_answer(
    db: Scratch, cast: Cast, reader_type: type[Reader], seen: str
) -> None:
    async with process_on(db, reader_type=reader_type) as one, process_on(db, clock=one.clock) as other:
        one.db.replies.shut()
        first = asyncio.create_task(cast.status_by(one))
        await one.db.replies.reached()
        await cast.revoke()
        one.clock.at_s += (await other.tail.wait_s()) or 0
        # The revocation has returned. What starts now must know of it.
        joins = asyncio.create_task(cast.status_by(one))
        await one.poll()
        one.db.replies.open()
        assert await first == "active", "who began before may answer either way"
        assert await joins == seen


async def test_many_who_ask_for_the_same_at_once_load_once(db: Scratch, cast: Cast) -> None:
    async with process_on(db) as one:
        one.db.replies.shut()
        asking = [asyncio.create_task(cast.status_by(one)) for _ in range(20)]
        await one.db.replies.reached()
        one.db.replies.open()
        assert await asyncio.gather(*asking) == ["active"] * 20
        assert one.db.loads == 1


async def test_two_who_find_nothing_beside_the_record_load_once(db: Scratch, cast: Cast) -> None:
    async with process_on(db, beside=Hostile()) as one:
        asking = [asyncio.create_task(cast.status_by(one)) for _ in range(5)]
        assert await asyncio.gather(*asking) == ["active"] * 5
        assert one.db.loads == 1


@pytest.mark.parametrize(("volatility", "seen"), [("STABLE", (True, True)), ("VOLATILE", (False, True))])
async def test_a_load_reads_one_state_since_its_functions_are_stable(
    db: Scratch, cast: Cast, volatility: str, seen: tuple[bool, bool]
) -> None:
    """A volatile function takes a snapshot of its own for each statement in it: what commits between two of them shows in
    one fact and not in the other."""
    signature = "license.policy_facts(text, text, text)"
    await cast.admin.execute(f"ALTER FUNCTION {signature} {volatility}")
    async with process_on(db) as one, db.connect() as writer:
        writing = writer.transaction()
        await writing.start()
        await writer.execute("LOCK TABLE license.policy IN ACCESS EXCLUSIVE MODE")
        loading = asyncio.create_task(one.licenses.recorded(cast.tenant, cast.wanted))
        await until(lambda: is_waited(cast.admin, db))
        await cast.run(MARK_BOTH, writer)
        await writing.commit()
        loaded = await loading
    await cast.admin.execute(f"ALTER FUNCTION {signature} STABLE")
    assert marks(loaded) == seen


async def is_waited(admin: asyncpg.Connection, db: Scratch) -> bool:
    """Whether somebody stands at a lock of the database."""
    return await admin.fetchval(
        "SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
        "WHERE NOT l.granted AND d.datname = $1",
        db.name,
    )


async def test_every_function_that_loads_call_is_stable(db: Scratch) -> None:
    async with db.connect() as conn:
        found = await conn.fetch(
            "SELECT p.proname, p.provolatile::text AS volatility FROM pg_proc AS p "
            "WHERE has_function_privilege('lictor_facts', p.oid, 'EXECUTE') AND p.pronamespace = 'license'::regnamespace "
            "AND p.prorettype <> 'trigger'::regtype"
        )
    assert len(found) >= 11
    assert [row["proname"] for row in found if row["volatility"] not in ("s", "i")] == []


async def test_a_write_that_a_process_has_not_heard_of_is_asked_for(db: Scratch, cast: Cast) -> None:
    """At least as fresh as a token: an answer of memory that does not know of the write is none."""
    async with process_on(db) as one:
        await cast.learned_by(one)
        async with cast.admin.transaction():
            xid = int(await cast.admin.fetchval("SELECT pg_current_xact_id()::text"))
            await cast.run("UPDATE license.license SET status = 'suspended' WHERE account_id = $1")
        stamp = one.tail.state.stamp
        after = Revision(stamp.system_id, stamp.epoch, xid)
        assert cast.held_by(one) == "active"
        loaded = await one.licenses.one(cast.tenant, cast.wanted, after)
        assert loaded.facts is not None
        assert loaded.facts.status == "suspended"
