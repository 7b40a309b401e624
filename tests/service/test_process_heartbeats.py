"""What heartbeats and time do to processes: every action in every state, and each boundary to the microsecond."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from lictor.machine.v1.machine_pb2 import Process

from services.machine.fates import RECHECK
from shared.embedded.postgres import EmbeddedPostgres
from shared.rules.heartbeats import DRIFT
from tests.helpers.builders import events, held
from tests.helpers.machine_workers import Looking, looking
from tests.helpers.record_clock import Standstill, standstill
from tests.helpers.suite import World
from tests.service.test_machine_activation import a_fingerprint, refusal_of
from tests.service.test_processes import Home, counted, home, told

STEP = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
LIVES = MINUTE + DRIFT
LATE = pytest.mark.parametrize("late", [-STEP, timedelta(0), STEP])


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="still")
async def _still(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Standstill]:
    async with standstill(postgres, tmp_path_factory.mktemp("still")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session", name="world")
async def _world(still: Standstill) -> AsyncGenerator[World]:
    async with still.suite.world() as fresh:
        yield fresh


@pytest_asyncio.fixture(loop_scope="session", name="looks")
async def _looks(still: Standstill) -> AsyncGenerator[Looking]:
    async with looking(still.suite) as one:
        await one.settle()  # what other tests have left
        yield one


def deadline_of(process: Process) -> datetime:
    return process.heartbeat_deadline.ToDatetime(tzinfo=UTC)


TABLE: dict[tuple[str, str], tuple[bool, bool, list[str]]] = {
    ("absent", "beat"): (True, True, ["created"]),
    ("alive", "beat"): (False, True, []),
    ("dead", "beat"): (True, True, ["heartbeat.dead", "created"]),
    ("swept", "beat"): (True, True, ["heartbeat.dead", "created"]),
    ("absent", "end"): (False, False, []),
    ("alive", "end"): (False, False, ["deleted"]),
    ("dead", "end"): (False, False, ["deleted"]),
    ("swept", "end"): (False, False, ["heartbeat.dead"]),
}
"""Whether the action starts one, whether there is one then, and what is told after its first start."""


@pytest.mark.parametrize(("state", "action"), TABLE)
async def test_every_action_in_every_state(
    still: Standstill, world: World, looks: Looking, state: str, action: str
) -> None:
    mine = await home(world, max_processes=1)
    if state != "absent":
        first = (await world.test.heartbeat_process(mine.machine_id, "p")).process
        if state != "alive":
            await still.at(deadline_of(first))
        if state == "swept":
            await looks.settle()
    answer = await world.test.heartbeat_process(mine.machine_id, "p", ended=action == "end")
    started, there, news = TABLE[state, action]
    assert (answer.started, await counted(still.suite, mine.license.license_id)) == (started, (there, there))
    await looks.settle()
    before = [] if state == "absent" else ["process.created"]
    assert await told(still.suite, mine.machine_id) == before + [f"process.{one}" for one in news]


@LATE
async def test_a_process_is_dead_from_its_deadline_on(
    still: Standstill, world: World, looks: Looking, late: timedelta
) -> None:
    mine = await home(world)
    first = (await world.test.heartbeat_process(mine.machine_id, "p")).process
    assert deadline_of(first) == await still.now() + LIVES
    await looks.settle()
    await still.at(deadline_of(first) + late)
    found = [one async for one in world.test.machines.list_processes(mine.license.license_id)]
    alive = late < timedelta(0)
    assert [one.process_id for one in found] == ([first.process_id] if alive else [])
    again = await world.test.heartbeat_process(mine.machine_id, "p")
    assert again.started is not alive
    assert (again.process.process_id == first.process_id) is alive
    assert deadline_of(again.process) == await still.now() + LIVES


@LATE
async def test_the_place_of_a_dead_one_is_free_for_another(still: Standstill, world: World, late: timedelta) -> None:
    """Nobody has written its death down before."""
    mine = await home(world, 2, process_leasing="PER_LICENSE", max_processes=1)
    first = (await world.test.heartbeat_process(mine.machine_id, "p")).process
    other = mine.machines[1].machine_id
    await still.at(deadline_of(first) + late)
    if late < timedelta(0):
        assert await refusal_of(world.test.heartbeat_process(other, "q")) == "MACHINE_LIMIT_EXCEEDED"
        assert await told(still.suite, mine.machine_id) == ["process.created"]
        return
    assert (await world.test.heartbeat_process(other, "q")).started
    assert await counted(still.suite, mine.license.license_id) == (1, 1)
    assert await told(still.suite, mine.machine_id) == ["process.created", "process.heartbeat.dead"]
    assert await refusal_of(world.test.heartbeat_process(mine.machine_id, "p")) == "MACHINE_LIMIT_EXCEEDED"


@LATE
async def test_the_worker_frees_the_dead_and_tells_of_each_once(
    still: Standstill, world: World, looks: Looking, late: timedelta
) -> None:
    mine = await home(world, 2)
    made = [(await world.test.heartbeat_process(one.machine_id, "p")).process for one in mine.machines]
    await still.at(deadline_of(made[0]) + late)
    await world.test.heartbeat_process(mine.machines[1].machine_id, "p")
    for _ in range(2):
        await looks.settle()
    alive = late < timedelta(0)
    assert await counted(still.suite, mine.license.license_id) == ((2, 2) if alive else (1, 1))
    news = [one for one in await events(still.suite, mine.machine_id) if one["type"] == "process.heartbeat.dead"]
    assert len(news) == (0 if alive else 1)
    for one in news:
        assert (one["actor"], one["source"]) == ("worker", "worker")
        assert one["data"]["process_id"] == made[0].process_id
        assert datetime.fromisoformat(one["data"]["last_heartbeat_at"]) == deadline_of(made[0]) - LIVES


async def test_the_worker_waits_for_nobody_at_the_seats_and_comes_again(
    still: Standstill, world: World, looks: Looking
) -> None:
    mine = await home(world)
    first = (await world.test.heartbeat_process(mine.machine_id, "p")).process
    await still.at(deadline_of(first))
    license_id = mine.license.license_id
    async with held(still.suite, "SELECT FROM machine.seat WHERE license_id = $1 FOR UPDATE", license_id):
        assert await looks.settle() >= 1
        assert await counted(still.suite, license_id) == (1, 1)
    await still.passes(timedelta(seconds=1))
    assert await looks.settle() == 1
    assert await counted(still.suite, license_id) == (0, 0)


async def test_an_interval_that_gets_shorter_is_seen_within_the_recheck(
    still: Standstill, world: World, looks: Looking
) -> None:
    mine = await home(world, heartbeat_interval=timedelta(days=1))
    await world.test.heartbeat_process(mine.machine_id, "p")
    await looks.settle()
    await world.test.policies.update(mine.shop.policy.policy_id, heartbeat_interval=MINUTE)
    await still.passes(RECHECK)
    await looks.settle()
    assert await counted(still.suite, mine.license.license_id) == (0, 0)


async def beating(still: Standstill, world: World, **terms: Any) -> tuple[Home, datetime]:
    """A machine that must beat, with a process; and when the machine is dead."""
    mine = await home(world, require_heartbeat=True, **terms)
    due = (await world.test.heartbeat(mine.machine_id)).heartbeat.deadline.ToDatetime(tzinfo=UTC)
    await world.test.heartbeat_process(mine.machine_id, "p")
    return mine, due


async def test_a_dead_machine_starts_none_and_those_that_live_go_on(
    still: Standstill, world: World, looks: Looking
) -> None:
    mine, due = await beating(still, world)
    async with still.suite.admin() as conn:
        await conn.execute(
            "UPDATE license.policy SET heartbeat_cull = 'KEEP_DEAD' WHERE policy_id = $1", mine.shop.policy.policy_id
        )
    await still.at(due - STEP)
    assert not (await world.test.heartbeat_process(mine.machine_id, "p")).started
    assert (await world.test.heartbeat_process(mine.machine_id, "q")).started
    await still.at(due)
    await looks.settle()
    assert not (await world.test.heartbeat_process(mine.machine_id, "p")).started
    assert await refusal_of(world.test.heartbeat_process(mine.machine_id, "r")) == "STATE_TRANSITION_INVALID"


async def test_a_machine_that_is_culled_takes_its_processes_with_it(
    still: Standstill, world: World, looks: Looking
) -> None:
    mine, due = await beating(still, world)
    await still.at(due - STEP)
    await world.test.heartbeat_process(mine.machine_id, "p")
    await still.at(due)
    await looks.settle()
    assert await counted(still.suite, mine.license.license_id) == (0, 0)


async def test_a_lease_that_is_over_ends_the_heartbeats_of_its_processes(still: Standstill, world: World) -> None:
    mine = await home(world, 0, floating=True)
    granted = await world.test.acquire_seat(key=mine.key, fingerprint=a_fingerprint(), ttl=timedelta(seconds=60))
    machine = granted.granted.machine
    await world.test.heartbeat_process(machine.machine_id, "p")
    await still.at(machine.lease.expire_time.ToDatetime(tzinfo=UTC) - STEP)
    assert not (await world.test.heartbeat_process(machine.machine_id, "p")).started
    await still.at(machine.lease.expire_time.ToDatetime(tzinfo=UTC))
    assert await refusal_of(world.test.heartbeat_process(machine.machine_id, "p")) == "STATE_TRANSITION_INVALID"
