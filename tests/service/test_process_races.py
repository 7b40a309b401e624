"""Starts, heartbeats, ends, deaths and deactivations of processes that race: never one too many, and each ends once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from lictor import LictorError

from tests.helpers.builders import events
from tests.helpers.machine_workers import Looking, looking
from tests.helpers.suite import Suite, World
from tests.service.test_processes import counted, home

PLACES = 6
MACHINES = 4
HANDS = 24
REFUSED = {"MACHINE_LIMIT_EXCEEDED", "STATE_TRANSITION_INVALID"}


async def test_whatever_races_there_is_never_one_too_many_and_each_ends_once(suite: Suite, world: World) -> None:
    mine = await home(world, MACHINES, process_leasing="PER_LICENSE", max_processes=PLACES)
    license_id, stop = mine.license.license_id, asyncio.Event()
    outcomes: Counter[str] = Counter()

    async def act(hand: int) -> None:
        while not stop.is_set():
            machine, ended = mine.machines[hand % MACHINES], random.random() < 0.3
            name = f"p{random.randrange(4)}"
            try:
                answer = await world.test.heartbeat_process(machine.machine_id, name, ended=ended, timeout_s=10)
            except LictorError as error:
                assert error.reason in REFUSED, error
                outcomes[error.reason] += 1
            else:
                outcomes["ended" if ended else "started" if answer.started else "beaten"] += 1

    async def kill() -> None:
        """Nothing was heard of one of them for long, since before anybody who counts them came to the seats."""
        async with suite.admin() as conn:
            while not stop.is_set():
                async with conn.transaction():
                    await conn.execute("SELECT FROM machine.seat WHERE license_id = $1 FOR UPDATE", license_id)
                    done = await conn.execute(
                        "UPDATE machine.process SET last_heartbeat_at = '2020-01-01', due_at = now() WHERE process_id = "
                        "(SELECT process_id FROM machine.process WHERE license_id = $1 ORDER BY random() LIMIT 1)",
                        license_id,
                    )
                outcomes["killed"] += int(done.removeprefix("UPDATE "))
                await asyncio.sleep(0.02)

    async def watch() -> None:
        while not stop.is_set():
            said, there = await counted(suite, license_id)
            assert said == there <= PLACES
            outcomes["seen"] += 1
            await asyncio.sleep(0.01)

    async def look(worker: Looking) -> None:
        while not stop.is_set():
            await worker.worker.tick()
            await asyncio.sleep(0.01)

    async with looking(suite) as one, looking(suite) as two:
        work = (*(act(hand) for hand in range(HANDS)), kill(), watch(), look(one), look(two))
        running = [asyncio.create_task(each) for each in work]
        await asyncio.sleep(2)
        gone = mine.machines[0].machine_id
        await world.test.machines.deactivate(gone)
        await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*running)
    assert {"started", "beaten", "ended", "killed", "seen", *REFUSED} <= outcomes.keys(), outcomes
    told: Counter[tuple[str, bool]] = Counter()
    for machine in mine.machines:
        for event in await events(suite, machine.machine_id):
            if event["type"].startswith("process."):
                told[event["data"]["process_id"], event["type"] == "process.created"] += 1
    assert set(told.values()) == {1}, "told of twice"
    started = {process_id for process_id, began in told if began}
    over = {process_id for process_id, began in told if not began}
    assert over <= started
    assert len(started) == outcomes["started"]
    async with suite.admin() as conn:
        rows = await conn.fetch("SELECT process_id, machine_id FROM machine.process WHERE license_id = $1", license_id)
    left = {row["process_id"] for row in rows}
    assert gone not in {row["machine_id"] for row in rows}
    assert left <= started - over
    went_with_the_machine = started - over - left
    assert len(went_with_the_machine) <= PLACES
    assert (await counted(suite, license_id))[0] == len(left)
