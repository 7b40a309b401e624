"""Processes that take heartbeats are killed: what was answered is in the record. And what heartbeats of many machines cost."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from lictor import AsyncLictor, LictorError

from shared.embedded.postgres import EmbeddedPostgres
from shared.rules.heartbeats import DRIFT
from tests.helpers.builders import open_shop
from tests.helpers.lease import set_lease
from tests.helpers.machine_workers import machine_copies
from tests.helpers.serving import samples, serving, until
from tests.helpers.suite import Suite, World
from tests.helpers.workers import record_now

MACHINES = 200
MANY = 10_000
INTERVAL_S = 60
SPAN_S = 30
COUNTED = MANY * SPAN_S // INTERVAL_S


async def machines(suite: Suite, world: World, count: int) -> list[str]:
    """Machines that were heard of once, a few hundred on each license."""
    shop = await open_shop(
        world.test, max_machines=20_000, require_heartbeat=True, heartbeat_interval=timedelta(seconds=INTERVAL_S)
    )
    made: list[str] = []
    while len(made) < count:
        fingerprint = f"fingerprint-{uuid4().hex}"
        first = (await world.test.activate(key=(await shop.issue()).key, fingerprint=fingerprint)).machine.machine_id
        await world.test.heartbeat(first)
        made += await machine_copies(suite, first, min(500, count - len(made)))
    return made


async def heard(suite: Suite, machine_ids: list[str]) -> dict[str, datetime]:
    async with suite.admin() as conn:
        rows = await conn.fetch(
            "SELECT machine_id, last_heartbeat_at FROM machine.beat WHERE machine_id = ANY ($1)", machine_ids
        )
    return {row["machine_id"]: row["last_heartbeat_at"] for row in rows}


async def test_what_a_killed_process_has_answered_is_in_the_record(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with serving(postgres, tmp_path, "grpcio") as quiet, quiet.suite.world() as world:
        mine = await machines(quiet.suite, world, MACHINES)
        answered: dict[str, datetime] = {}
        lost = 0
        async with (
            serving(postgres, tmp_path, "grpcio") as killed,
            AsyncLictor(api_key=world.test_key, endpoint=killed.listen.api) as client,
        ):

            async def beat(machine_id: str) -> None:
                nonlocal lost
                while True:
                    try:
                        answer = await client.heartbeat(machine_id, timeout_s=5)
                    except LictorError:
                        lost += 1
                        return
                    deadline = answer.heartbeat.deadline.ToDatetime(tzinfo=UTC)
                    answered[machine_id] = deadline - timedelta(seconds=INTERVAL_S) - DRIFT

            running = [asyncio.create_task(beat(machine_id)) for machine_id in mine[:100]]
            await until(lambda: len(answered) == 100, 20)
            await asyncio.sleep(0.3)
            os.kill(killed.process.pid, signal.SIGKILL)
            await killed.ended()
            await asyncio.gather(*running)
        assert lost == 100, "all were on their way when it was killed"
        found = await heard(quiet.suite, mine)
        assert all(found[machine_id] >= at for machine_id, at in answered.items())
        again = [await world.test.heartbeat(machine_id) for machine_id in mine[:3]]
        assert not any(answer.resurrected for answer in again)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_ten_thousand_machines_cost_a_few_transactions_a_second(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Half a minute of 10,000 machines that beat once a minute, and the worker beside them, against as long without."""
    async with (
        serving(postgres, tmp_path, "grpcio", machine_sweep_interval_s="5", account_share_percent="100") as served,
        served.suite.world() as world,
    ):
        await set_lease(postgres.admin_dsn(), 250)  # as in production: with a short one each call polls
        mine = await machines(served.suite, world, MANY)
        await asyncio.sleep(10)  # the worker looks at all that are new

        async def transactions() -> int:
            await asyncio.sleep(1.5)  # backends report once a second
            async with served.suite.admin() as conn:
                return await conn.fetchval(
                    "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
                )

        before = await transactions()
        await asyncio.sleep(SPAN_S)
        idle = await transactions() - before
        due = asyncio.Queue[str]()
        failed = 0

        async def send() -> None:
            nonlocal failed
            while True:
                try:
                    await world.test.heartbeat(await due.get(), timeout_s=5)
                except LictorError:
                    failed += 1

        senders = [asyncio.create_task(send()) for _ in range(100)]
        started = await record_now(served.suite)
        before = await transactions()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for sent, machine_id in enumerate(mine[:COUNTED]):
            await asyncio.sleep(max(0.0, began + sent * INTERVAL_S / MANY - loop.time()))
            due.put_nowait(machine_id)
        took_s = loop.time() - began
        busy = await transactions() - before
        for task in senders:
            task.cancel()
        await asyncio.wait(senders)
        found = await heard(served.suite, mine[: COUNTED - 500])
        exposition = (await served.get("/metrics"))[1]
        await set_lease(postgres.admin_dsn())
    more = busy / took_s - idle / SPAN_S
    taken = samples(exposition, "lictor_heartbeats_total")
    print(f"{COUNTED / took_s:.0f} heartbeats/s: {more:.1f} transactions/s more than without; {taken}")
    assert failed == 0
    assert all(at >= started for at in found.values())
    assert took_s <= SPAN_S + 2
    assert more <= 15, "two a batch, five batches a second, and the worker's"
