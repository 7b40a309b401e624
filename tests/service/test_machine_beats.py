"""Heartbeats of many machines are few transactions, and each is in the record when it is answered, whoever else is there."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from lictor import AsyncLictor, LictorError
from lictor.machine.v1.machine_pb2 import HeartbeatStatus

from services.machine import beats
from services.machine.beats import Beats, Taken
from services.machine.metrics import BeatMetrics
from shared.clock import SystemClock
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from tests.helpers.builders import events, held, open_shop, shift
from tests.helpers.machine_workers import looking, machine_copies
from tests.helpers.suite import Suite, World
from tests.helpers.workers import record_now

BEATS: dict[str, Any] = {"require_heartbeat": True, "heartbeat_interval": timedelta(seconds=60), "max_machines": 5000}


async def activated(world: World, **terms: Any) -> tuple[str, str, str]:
    """A machine that was heard of: its id, its license's key, and its own secret."""
    issued = await (await open_shop(world.test, **{**BEATS, **terms})).issue()
    made = await world.test.activate(key=issued.key, fingerprint=f"fingerprint-{uuid4().hex}")
    await world.test.heartbeat(made.machine.machine_id)
    return made.machine.machine_id, issued.key, made.machine_secret


async def heard(suite: Suite, machine_ids: list[str]) -> dict[str, datetime]:
    async with suite.admin() as conn:
        rows = await conn.fetch(
            "SELECT machine_id, last_heartbeat_at FROM machine.beat WHERE machine_id = ANY ($1)", machine_ids
        )
    return {row["machine_id"]: row["last_heartbeat_at"] for row in rows}


@pytest_asyncio.fixture(loop_scope="session", name="batches")
async def _batches(suite: Suite) -> AsyncGenerator[Beats]:
    """Batches on connections of their own, written when a test says so."""
    target = PostgresTarget(suite.settings.postgres_dsn.get_secret_value())
    async with (
        Database.opened(target, Role.MACHINE_WORKER, size=1) as db,
        Database.opened(target, Role.FACTS, size=1) as facts,
    ):
        yield Beats(db, facts, SystemClock(), BeatMetrics())


async def write(batches: Beats, world: World, machine_ids: list[str]) -> list[Taken | None]:
    """One batch of these, and what came of each."""
    waiting = [asyncio.create_task(batches.beat(world.tenant(), one)) for one in machine_ids]
    await asyncio.sleep(0)
    await batches.flush()
    return await asyncio.gather(*waiting)


async def test_a_batch_takes_what_lives_and_leaves_the_rest_to_transactions_of_their_own(
    suite: Suite, world: World, batches: Beats
) -> None:
    alive, _, _ = await activated(world)
    (dead, late, gone, reset, leased) = await machine_copies(suite, alive, 5)
    await shift(suite, "machine.beat", "machine_id", late, last_heartbeat_at=datetime(2020, 1, 1, tzinfo=UTC))
    await shift(suite, "machine.machine", "machine_id", late, heartbeat_from=datetime(2020, 1, 1, tzinfo=UTC))
    await shift(suite, "machine.beat", "machine_id", leased, lease_expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    async with suite.admin() as conn:
        await conn.execute(
            "UPDATE machine.machine SET heartbeat_status = 'DEAD', died_at = now() WHERE machine_id = $1", dead
        )
    await world.test.machines.deactivate(gone)
    await world.test.machines.reset_heartbeat(reset)
    before = await heard(suite, [alive, dead, late, gone, reset, leased])
    found = await write(batches, world, [alive, dead, late, gone, reset, leased, "mach_unknown"])
    assert [one is not None for one in found] == [True] + [False] * 6
    after = await heard(suite, list(before))
    assert {one for one in before if before[one] != after[one]} == {alive}


async def test_a_batch_takes_machines_and_processes_together_and_leaves_processes_that_are_dead_or_not_there(
    suite: Suite, world: World, batches: Beats
) -> None:
    machine_id, _, _ = await activated(world)
    made = {name: (await world.test.heartbeat_process(machine_id, name)).process for name in ("alive", "dead", "held")}
    await shift(
        suite,
        "machine.process",
        "process_id",
        made["dead"].process_id,
        last_heartbeat_at=datetime(2020, 1, 1, tzinfo=UTC),
    )
    tenant = world.tenant()
    asked = [(machine_id, name) for name in (*made, "unknown")] + [("mach_unknown", "alive")]
    statement = "SELECT FROM machine.process WHERE process_id = $1 FOR UPDATE"
    async with held(suite, statement, made["held"].process_id), asyncio.timeout(1):
        waiting = [asyncio.create_task(batches.beat_process(tenant, *one)) for one in asked]
        machine = asyncio.create_task(batches.beat(tenant, machine_id))
        stranger = asyncio.create_task(batches.beat_process(tenant, machine_id, "alive", "lic_other"))
        await asyncio.sleep(0)
        await batches.flush()
        taken = await asyncio.gather(*waiting)
    assert [one is not None for one in taken] == [True, False, False, False, False]
    assert await machine is not None
    assert await stranger is None
    assert taken[0] is not None
    process, interval = taken[0]
    assert (process.process_id, interval) == (made["alive"].process_id, BEATS["heartbeat_interval"])
    assert process.last_heartbeat_at > made["alive"].last_heartbeat_time.ToDatetime(UTC)


async def test_a_machine_that_somebody_holds_keeps_no_batch_waiting(suite: Suite, world: World, batches: Beats) -> None:
    one, _, _ = await activated(world)
    (other,) = await machine_copies(suite, one, 1)
    async with held(suite, "SELECT FROM machine.beat WHERE machine_id = $1 FOR UPDATE", one):
        async with asyncio.timeout(1):
            taken = await write(batches, world, [one, other])
    assert [found is not None for found in taken] == [False, True]


async def test_a_death_that_is_committed_while_a_batch_is_on_its_way_is_seen(
    suite: Suite, world: World, batches: Beats
) -> None:
    machine_id, _, _ = await activated(world)
    async with suite.admin() as conn:
        await conn.execute(
            "UPDATE machine.machine SET heartbeat_status = 'DEAD', died_at = now() WHERE machine_id = $1", machine_id
        )
    assert await write(batches, world, [machine_id]) == [None]
    with pytest.raises(LictorError) as caught:
        await world.test.heartbeat(machine_id)
    assert caught.value.reason == "HEARTBEAT_DEAD"


async def test_who_waits_without_bound_is_refused(
    world: World, batches: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beats, "MOST_WAITING", 1)
    first = asyncio.create_task(batches.beat(world.tenant(), "mach_1"))
    await asyncio.sleep(0)
    with pytest.raises(Exception, match="too many heartbeats"):
        await batches.beat(world.tenant(), "mach_2")
    await batches.drain()
    assert await first is None


async def test_a_batch_that_fails_refuses_all_of_it_and_the_next_goes_on(
    suite: Suite, world: World, batches: Beats
) -> None:
    machine_id, _, _ = await activated(world)
    async with suite.admin() as conn:
        await conn.execute("REVOKE UPDATE ON machine.beat FROM lictor_machine_worker")
        try:
            with pytest.raises(Exception, match="could not be written"):
                await write(batches, world, [machine_id])
        finally:
            await conn.execute("GRANT UPDATE ON machine.beat TO lictor_machine_worker")
    assert (await write(batches, world, [machine_id]))[0] is not None


async def test_a_beat_needs_the_machines_own_secret_or_license(suite: Suite, world: World) -> None:
    machine_id, key, secret = await activated(world)
    _, other_key, other_secret = await activated_elsewhere(world)
    before = await heard(suite, [machine_id])
    with pytest.raises(LictorError) as caught:
        await world.test.heartbeat(machine_id, machine_secret=other_secret)
    assert caught.value.reason == "CALLER_NOT_ALLOWED"
    with pytest.raises(LictorError) as caught:
        await world.live.heartbeat(machine_id)
    assert caught.value.reason == "MACHINE_NOT_FOUND"
    assert await heard(suite, [machine_id]) == before
    assert (await world.test.heartbeat(machine_id, machine_secret=secret)).heartbeat.status == HeartbeatStatus.ALIVE
    assert (await heard(suite, [machine_id]))[machine_id] > before[machine_id]
    assert key != other_key


async def test_a_license_key_beats_for_machines_of_its_own_license_alone(suite: Suite, world: World) -> None:
    machine_id, key, _ = await activated(world, authentication="LICENSE")
    other = await activated(world, code="OTHER", authentication="LICENSE")
    pk = (await world.test.api_keys.create(scopes=["machines:activate"], kind="PUBLISHABLE")).secret
    before = await heard(suite, [machine_id])
    async with AsyncLictor(api_key=pk, license_key=other[1], endpoint=suite.bound.api_addr) as stranger:
        with pytest.raises(LictorError) as caught:
            await stranger.heartbeat(machine_id)
        assert caught.value.reason == "MACHINE_NOT_FOUND"
    assert await heard(suite, [machine_id]) == before
    async with AsyncLictor(api_key=pk, license_key=key, endpoint=suite.bound.api_addr) as own:
        await own.heartbeat(machine_id)
    assert (await heard(suite, [machine_id]))[machine_id] > before[machine_id]


async def activated_elsewhere(world: World) -> tuple[str, str, str]:
    issued = await (await open_shop(world.test, code="OTHER", **BEATS)).issue()
    made = await world.test.activate(key=issued.key, fingerprint=f"fingerprint-{uuid4().hex}")
    return made.machine.machine_id, issued.key, made.machine_secret


async def test_many_beats_are_few_transactions_over_all_tenants(suite: Suite) -> None:
    async with suite.world() as one, suite.world() as two:
        mine: list[tuple[AsyncLictor, str]] = []
        for world in (one, two):
            machine_id, _, _ = await activated(world)
            mine += [(world.test, copy) for copy in await machine_copies(suite, machine_id, 50)]
        before = await heard(suite, [machine_id for _, machine_id in mine])
        async with suite.admin() as conn:
            xids = [await conn.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")]
            answers = await asyncio.gather(*(client.heartbeat(machine_id) for client, machine_id in mine))
            xids.append(await conn.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"))
        assert all(answer.heartbeat.status == HeartbeatStatus.ALIVE for answer in answers)
        after = await heard(suite, [machine_id for _, machine_id in mine])
        assert all(after[machine_id] > before[machine_id] for machine_id in before)
        assert xids[1] - xids[0] <= 10, "transactions that wrote, of 100 heartbeats"


async def test_beats_of_many_processes_are_few_transactions_and_touch_no_fact(suite: Suite, world: World) -> None:
    machine_id, _, _ = await activated(world)
    names = [f"p{n}" for n in range(60)]
    await asyncio.gather(*(world.test.heartbeat_process(machine_id, name, timeout_s=30) for name in names))
    changes = f"SELECT count(*) FROM record.change_log WHERE key LIKE '%{world.account_id}%'"
    async with suite.admin() as conn:
        before = await conn.fetchrow(
            f"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid, ({changes}) AS log"
        )
        answers = await asyncio.gather(*(world.test.heartbeat_process(machine_id, name) for name in names))
        after = await conn.fetchrow(
            f"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid, ({changes}) AS log"
        )
    assert not any(answer.started for answer in answers)
    assert before is not None
    assert after is not None
    assert after["xid"] - before["xid"] <= 10, "transactions that wrote, of 60 heartbeats"
    assert after["log"] == before["log"]


async def test_beats_deaths_resets_and_ends_that_race_lose_nothing(suite: Suite, world: World) -> None:
    """Each life ends at most once, and what was answered is in the record."""
    first, _, _ = await activated(world)
    async with suite.admin() as conn:
        await conn.execute(
            "UPDATE license.policy SET heartbeat_resurrection = 'ALWAYS_REVIVE' WHERE account_id = $1", world.account_id
        )
    mine = [first, *await machine_copies(suite, first, 11)]
    shifted: Counter[str] = Counter()
    resurrected: Counter[str] = Counter()
    stop = asyncio.Event()

    async def beat(machine_id: str) -> None:
        while not stop.is_set():
            try:
                answer = await world.test.heartbeat(machine_id, timeout_s=10)
            except LictorError as error:
                assert error.reason == "STATE_TRANSITION_INVALID", error
                return
            resurrected[machine_id] += answer.resurrected

    async def kill() -> None:
        """Long nothing was heard of one of them: in the order in which all others take the rows."""
        async with suite.admin() as conn:
            while not stop.is_set():
                machine_id = random.choice(mine)
                async with conn.transaction():
                    await conn.execute(
                        "UPDATE machine.beat SET last_heartbeat_at = '2020-01-01' WHERE machine_id = $1", machine_id
                    )
                    await conn.execute(
                        "UPDATE machine.machine SET heartbeat_from = '2020-01-01' WHERE machine_id = $1 "
                        "AND heartbeat_from IS NOT NULL",
                        machine_id,
                    )
                shifted[machine_id] += 1
                await asyncio.sleep(0.03)

    async with looking(suite) as one, looking(suite) as two:

        async def look(worker: Any) -> None:
            while not stop.is_set():
                await worker.worker.tick()
                await asyncio.sleep(0.01)

        running = [asyncio.create_task(work) for work in (*(beat(m) for m in mine), kill(), look(one), look(two))]
        await asyncio.sleep(2)
        for machine_id in mine[:3]:
            await world.test.machines.reset_heartbeat(machine_id)
        for machine_id in mine[3:6]:
            await world.test.machines.deactivate(machine_id)
        await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*running)
    assert sum(resurrected.values()) > 0, "none died"
    now = (await record_now(suite)) - timedelta(seconds=30)
    for machine_id, last in (await heard(suite, mine[6:])).items():
        assert last > now or last.year == 2020, "a beat that was answered is not in the record"
        assert shifted[machine_id] > 0 or last > now
    for machine_id in mine:
        told = [row["type"].removeprefix("machine.") for row in await events(suite, machine_id)]
        lives = [name for name in told if name in {"heartbeat.dead", "heartbeat.resurrected", "heartbeat.reset"}]
        alive = True
        for name in lives:
            assert (name == "heartbeat.dead") is alive or name == "heartbeat.reset", told
            alive = name != "heartbeat.dead"
        assert lives.count("heartbeat.resurrected") == resurrected[machine_id]
        assert told.count("deactivated") == (1 if machine_id in mine[3:6] else 0)
