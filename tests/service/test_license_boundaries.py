"""What time alone does to a license is told once: whoever looks, how many look, and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from lictor.common.v1.event_pb2 import Event

from services.license import boundaries
from tests.helpers.builders import held, open_shop, shift
from tests.helpers.events import bad_events
from tests.helpers.serving import until
from tests.helpers.suite import Suite, World
from tests.helpers.workers import (
    Ticking,
    copies,
    due_count,
    events_of,
    record_now,
    sleep_until,
    ticking,
    told,
)

DAY = timedelta(days=1)
FAULTS_WITHIN_S = 30.0
"""A traceback for people takes seconds to print."""


@pytest_asyncio.fixture(loop_scope="session", name="ticks")
async def _ticks(suite: Suite) -> AsyncGenerator[Ticking]:
    async with ticking(suite) as one:
        await one.settle()  # what other tests have left
        yield one


async def issue(world: World, start: datetime, end: datetime) -> str:
    shop = await open_shop(world.test)
    made = await shop.issue(start_time=start, expire_time=end)
    return made.license.license_id


def boundary_time(event: Event) -> datetime:
    return datetime.fromisoformat(str(event.data["boundary_time"]))


async def last(world: World, license_id: str) -> Event:
    return [event async for event in world.test.licenses.events(license_id)][-1]


async def test_an_expiry_is_told_three_days_before_and_when_it_comes(
    suite: Suite, world: World, ticks: Ticking
) -> None:
    now = await record_now(suite)
    end = now + timedelta(seconds=1.5)
    license_id = await issue(world, now - 30 * DAY, end)
    await ticks.settle()
    assert await told(world, license_id) == ["created", "expiring_soon"]
    soon = await last(world, license_id)
    assert boundary_time(soon) == end - 3 * DAY
    assert soon.data["status"] == "active"
    await ticks.settle()
    assert await told(world, license_id) == ["created", "expiring_soon"], "not before it has come, and not twice"
    await sleep_until(suite, end)
    await ticks.settle()
    assert await told(world, license_id) == ["created", "expiring_soon", "expired"]
    expired = await last(world, license_id)
    assert boundary_time(expired) == end
    assert expired.occurred_at.ToDatetime(tzinfo=UTC) >= end
    assert (expired.actor, expired.source, expired.reason) == ("worker", "worker", "")
    assert expired.data["status"] == "expired"
    assert (await world.test.licenses.get(license_id)).revision == 1, "the license itself has not changed"
    await ticks.settle()
    assert len(await told(world, license_id)) == 3
    async with suite.admin() as conn:
        assert await bad_events(conn) == []


async def test_boundaries_that_nobody_saw_are_told_late_with_their_own_time(
    suite: Suite, world: World, ticks: Ticking
) -> None:
    end = (await record_now(suite)) - 100 * DAY
    license_id = await issue(world, end - 30 * DAY, end)
    await ticks.settle()
    found = [event async for event in world.test.licenses.events(license_id)]
    assert [event.type for event in found[1:]] == ["license.expiring_soon", "license.expired"]
    assert [boundary_time(event) for event in found[1:]] == [end - 3 * DAY, end]


async def test_a_license_that_never_expires_is_not_looked_at_again(suite: Suite, world: World, ticks: Ticking) -> None:
    shop = await open_shop(world.test, template="desktop_app", duration=None)
    license_id = (await shop.issue()).license.license_id
    await ticks.settle()
    async with suite.admin() as conn:
        row = await conn.fetchrow("SELECT * FROM license.boundary WHERE license_id = $1", license_id)
    assert row is not None
    assert row["due_at"] is None
    assert await told(world, license_id) == ["created"]


async def test_renewed_before_it_was_seen_nothing_is_told_and_renewed_after_all_is_told_anew(
    suite: Suite, world: World, ticks: Ticking
) -> None:
    end = (await record_now(suite)) - DAY
    license_id = await issue(world, end - 30 * DAY, end)
    await world.test.licenses.renew(license_id)
    await ticks.settle()
    assert await told(world, license_id) == ["created", "renewed"]
    await shift(suite, "license.license", "license_id", license_id, expires_at=end + timedelta(hours=1))
    await ticks.settle()
    assert await told(world, license_id) == ["created", "renewed", "expiring_soon", "expired"]
    await world.test.licenses.renew(license_id)
    await ticks.settle()
    await shift(suite, "license.license", "license_id", license_id, expires_at=end + timedelta(hours=1))
    await ticks.settle()
    assert await told(world, license_id) == [
        "created", "renewed", "expiring_soon", "expired", "renewed", "expiring_soon", "expired",
    ]  # fmt: skip


async def test_a_suspended_license_expires_when_it_is_reinstated(suite: Suite, world: World, ticks: Ticking) -> None:
    end = (await record_now(suite)) + timedelta(seconds=1)
    license_id = await issue(world, end - 30 * DAY, end)
    await ticks.settle()
    await world.test.licenses.suspend(license_id)
    await sleep_until(suite, end)
    await ticks.settle()
    assert await told(world, license_id) == ["created", "expiring_soon", "suspended"]
    await world.test.licenses.reinstate(license_id)
    await ticks.settle()
    assert await told(world, license_id) == ["created", "expiring_soon", "suspended", "reinstated", "expired"]


@pytest.mark.parametrize("action", ["revoke", "ban", "delete"])
async def test_what_has_ended_otherwise_does_not_expire(
    suite: Suite, world: World, ticks: Ticking, action: str
) -> None:
    end = (await record_now(suite)) - DAY
    license_id = await issue(world, end - 30 * DAY, end)
    await getattr(world.test.licenses, action)(license_id)
    before = await told(world, license_id)
    await ticks.settle()
    assert await told(world, license_id) == before


async def test_workers_that_race_tell_each_boundary_once(suite: Suite, world: World, ticks: Ticking) -> None:
    now = await record_now(suite)
    first = await issue(world, now, now + 100 * DAY)
    mine = await copies(suite, first, 1000, now - timedelta(hours=1))
    async with ticking(suite, size=4) as other:
        counts = await asyncio.gather(*(one.worker.tick() for one in (ticks, *[other] * 4)))
        assert sum(count > 0 for count in counts) >= 2, "they share the work"
        while await due_count(suite):
            await asyncio.gather(*(one.worker.tick() for one in (ticks, *[other] * 4)))
        assert sum(counts) <= 1000 + 1
    found = await events_of(suite, mine)
    assert len(found) == 1000
    assert all(types == ["license.expiring_soon", "license.expired"] for types in found.values())
    async with suite.admin() as conn:
        pointed = await conn.fetchval(
            "SELECT count(*) FROM record.event JOIN record.outbox USING (account_id, mode, event_id) WHERE subject = ANY ($1)",
            mine,
        )
    assert pointed == 2000


async def test_workers_and_callers_who_change_the_same_licenses_neither_block_nor_lose(
    suite: Suite, world: World, ticks: Ticking
) -> None:
    """Each license is renewed, suspended or left alone while it is due; what is told fits what came of it."""
    now = await record_now(suite)
    first = await issue(world, now, now + 100 * DAY)
    mine = await copies(suite, first, 60, now - timedelta(hours=1))
    stop = asyncio.Event()

    async def work(one: Ticking) -> None:
        while not stop.is_set():
            await one.worker.tick()
            await asyncio.sleep(0)

    async def change(number: int, license_id: str) -> None:
        if number % 3 == 0:
            await world.test.licenses.renew(license_id)
        elif number % 3 == 1:
            await world.test.licenses.update(license_id, expire_time=now - timedelta(minutes=30))

    async with ticking(suite) as other:
        workers = [asyncio.create_task(work(one)) for one in (ticks, other)]
        await asyncio.gather(*(change(number, license_id) for number, license_id in enumerate(mine)))
        stop.set()
        await asyncio.gather(*workers)
    await ticks.settle()
    found = await events_of(suite, mine)
    for number, license_id in enumerate(mine):
        types = [name.removeprefix("license.") for name in found[license_id]]
        ours = [name for name in types if name not in {"renewed", "updated"}]
        match number % 3:
            case 0:
                assert ours in ([], ["expiring_soon", "expired"]), types
                assert types[-1] == "renewed", types
            case 1:
                # Once for each of the two expiries, or only for the second where nobody had seen the first.
                assert ours in (["expiring_soon", "expired"], ["expiring_soon", "expired"] * 2), types
                assert types[-1] == "expired", types
            case _:
                assert types == ["expiring_soon", "expired"]


async def test_a_license_that_somebody_holds_keeps_no_other_waiting(suite: Suite, world: World, ticks: Ticking) -> None:
    now = await record_now(suite)
    first = await issue(world, now, now + 100 * DAY)
    held_id, other_id = await copies(suite, first, 2, now - timedelta(hours=1))
    async with held(suite, "SELECT FROM license.license WHERE license_id = $1 FOR UPDATE", held_id):
        async with asyncio.timeout(2):
            await ticks.settle()
        assert (await events_of(suite, [held_id, other_id])).keys() == {other_id}
    await ticks.settle()
    assert (await events_of(suite, [held_id]))[held_id] == ["license.expiring_soon", "license.expired"]


async def test_a_tick_that_fails_changes_nothing_and_the_next_goes_on(
    suite: Suite, world: World, ticks: Ticking
) -> None:
    end = (await record_now(suite)) - DAY
    license_id = await issue(world, end - 30 * DAY, end)
    async with suite.admin() as conn:
        await conn.execute("REVOKE INSERT ON record.outbox FROM lictor_license_worker")
    running = asyncio.create_task(ticks.worker.run(0.05))
    try:
        await until(lambda: failures(ticks) >= 2, FAULTS_WITHIN_S)
        assert await told(world, license_id) == ["created"]
        async with suite.admin() as conn:
            await conn.execute("GRANT INSERT ON record.outbox TO lictor_license_worker")

        async def expired() -> bool:
            return await told(world, license_id) == ["created", "expiring_soon", "expired"]

        await until(expired, FAULTS_WITHIN_S)
    finally:
        async with suite.admin() as conn:
            await conn.execute("GRANT INSERT ON record.outbox TO lictor_license_worker")
        running.cancel()
        await asyncio.wait({running})


def failures(ticks: Ticking) -> float:
    return counted(ticks)["lictor_worker_failures_total['boundaries']"]


async def test_what_was_told_is_counted_with_how_late_it_was(suite: Suite, world: World, ticks: Ticking) -> None:
    end = (await record_now(suite)) - DAY
    before = counted(ticks)
    await issue(world, end - 30 * DAY, end)
    await ticks.settle()
    new = counted(ticks) - before
    assert new["lictor_boundaries_total['license.expired']"] == 1
    assert new["lictor_boundaries_total['license.expiring_soon']"] == 1
    assert new["lictor_boundary_lag_seconds_count[]"] == 2
    assert new["lictor_boundary_lag_seconds_sum[]"] >= (DAY + 4 * DAY).total_seconds()


def counted(ticks: Ticking) -> Counter[str]:
    """What the worker has counted, by name and labels."""
    return Counter(
        {
            sample.name + str(sorted(sample.labels.values())): sample.value
            for collector in ticks.metrics.collectors
            for family in collector.collect()
            for sample in family.samples
        }
    )


async def test_a_batch_is_bounded(suite: Suite, world: World, ticks: Ticking) -> None:
    now = await record_now(suite)
    first = await issue(world, now, now + 100 * DAY)
    await copies(suite, first, boundaries.BATCH_LICENSES + 1, now - DAY)
    assert await ticks.worker.tick() == boundaries.BATCH_LICENSES
    assert await ticks.worker.tick() == 2
    assert await ticks.worker.tick() == 0
