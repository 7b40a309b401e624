"""What a policy says decides what time does to its licenses, also to those that were there before it changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from lictor.common.v1.event_pb2 import Event
from lictor.license.v1.license_service_pb2 import LicenseStatus

from services.license import boundaries
from tests.helpers.builders import Shop, open_shop, shift
from tests.helpers.serving import until
from tests.helpers.suite import Suite, World
from tests.helpers.workers import Ticking, copies, events_of, record_now, sleep_until, ticking, told

DAY = timedelta(days=1)


@pytest_asyncio.fixture(loop_scope="session", name="ticks")
async def _ticks(suite: Suite) -> AsyncGenerator[Ticking]:
    async with ticking(suite) as one:
        await one.settle()
        yield one


async def issue(shop: Shop, end: datetime) -> str:
    return (await shop.issue(start_time=end - 30 * DAY, expire_time=end)).license.license_id


async def found(world: World, license_id: str) -> list[Event]:
    return [event async for event in world.test.licenses.events(license_id)]


async def test_grace_comes_before_the_end(suite: Suite, world: World, ticks: Ticking) -> None:
    end = (await record_now(suite)) - DAY
    shop = await open_shop(world.test, grace_period=DAY + timedelta(seconds=1))
    license_id = await issue(shop, end)
    await ticks.settle()
    assert await told(world, license_id) == ["created", "expiring_soon", "grace_started"]
    assert (await found(world, license_id))[-1].data["status"] == "active"
    await sleep_until(suite, end + DAY + timedelta(seconds=1))
    await ticks.settle()
    assert await told(world, license_id) == ["created", "expiring_soon", "grace_started", "expired"]
    last = (await found(world, license_id))[-1]
    assert datetime.fromisoformat(str(last.data["boundary_time"])) == end + DAY + timedelta(seconds=1)
    assert last.data["status"] == "expired"


async def test_the_strategy_revoke_stores_the_revocation_once(suite: Suite, world: World, ticks: Ticking) -> None:
    end = (await record_now(suite)) - timedelta(hours=1)
    shop = await open_shop(world.test, expiration_strategy="REVOKE")
    license_id = await issue(shop, end)
    before = await change_log(suite, license_id)
    await ticks.settle()
    await ticks.settle()
    events = await found(world, license_id)
    assert await told(world, license_id) == ["created", "expiring_soon", "expired", "revoked"]
    assert (events[-1].reason, events[-1].source, events[-1].data["status"]) == ("expired", "worker", "revoked")
    stored = await world.test.licenses.get(license_id)
    assert (stored.status_reason, stored.revision) == ("expired", 2)
    async with suite.admin() as conn:
        row = await conn.fetchrow("SELECT status FROM license.license WHERE license_id = $1", license_id)
    assert row is not None
    assert row["status"] == "revoked"
    assert await change_log(suite, license_id) == before + 1, "facts of it are read anew"


async def change_log(suite: Suite, license_id: str) -> int:
    async with suite.admin() as conn:
        return await conn.fetchval(
            "SELECT count(*) FROM record.change_log WHERE kind = 'license' AND key LIKE '%/' || $1", license_id
        )


@pytest.mark.parametrize(("interval", "lead"), [("DAY", timedelta(hours=6)), ("WEEK", timedelta(hours=42))])
async def test_a_check_in_is_due_soon_and_then_overdue(
    suite: Suite, world: World, ticks: Ticking, interval: str, lead: timedelta
) -> None:
    shop = await open_shop(world.test, duration=None, require_check_in=True, check_in_interval=interval)
    license_id = (await shop.issue()).license.license_id
    await ticks.settle()
    assert await told(world, license_id) == ["created"]
    due = await check_in_due(world, license_id)
    # As if it had been issued so long ago that its check-in is due in a moment less than the lead, then now.
    now = await record_now(suite)
    await move_check_in(suite, world, license_id, due - now - lead + timedelta(minutes=1))
    await ticks.settle()
    assert await told(world, license_id) == ["created", "check_in.required_soon"]
    await move_check_in(suite, world, license_id, lead + timedelta(minutes=5))
    await ticks.settle()
    assert (await told(world, license_id))[-1] == "check_in.overdue"
    last = (await found(world, license_id))[-1]
    assert datetime.fromisoformat(str(last.data["boundary_time"])) == await check_in_due(world, license_id)
    await world.test.licenses.check_in(license_id)
    await ticks.settle()
    assert (await told(world, license_id))[-1] == "checked_in"


async def check_in_due(world: World, license_id: str) -> datetime:
    return (await world.test.licenses.get(license_id)).check_in_due_time.ToDatetime(tzinfo=UTC)


async def move_check_in(suite: Suite, world: World, license_id: str, back: timedelta) -> None:
    async with suite.admin() as conn:
        counted_from = "SELECT coalesce(check_in_from, created_at) FROM license.license WHERE license_id = $1"
        start: Any = await conn.fetchval(counted_from, license_id)
        policy_id = await conn.fetchval("SELECT policy_id FROM license.license WHERE license_id = $1", license_id)
    await shift(suite, "license.policy", "policy_id", policy_id, check_in_since=start - 1000 * DAY)
    await shift(suite, "license.license", "license_id", license_id, check_in_from=start - back)


async def test_a_check_in_at_the_end_of_a_month(suite: Suite, world: World, ticks: Ticking) -> None:
    shop = await open_shop(world.test, duration=None, require_check_in=True, check_in_interval="MONTH")
    license_id = (await shop.issue()).license.license_id
    await shift(
        suite, "license.policy", "policy_id", shop.policy.policy_id, check_in_since=datetime(2020, 1, 1, tzinfo=UTC)
    )
    start = datetime(2024, 1, 31, 12, tzinfo=UTC)
    await shift(suite, "license.license", "license_id", license_id, check_in_from=start)
    await ticks.settle()
    soon, overdue = (await found(world, license_id))[1:]
    assert datetime.fromisoformat(str(overdue.data["boundary_time"])) == datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert datetime.fromisoformat(str(soon.data["boundary_time"])) == datetime(2024, 2, 26, 12, tzinfo=UTC)


async def test_a_policy_that_changes_is_noticed_for_all_its_licenses(
    suite: Suite, world: World, ticks: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boundaries, "RECHECK_LICENSES", 40)  # several batches of it
    now = await record_now(suite)
    shop = await open_shop(world.test, grace_period=30 * DAY)
    mine = await copies(suite, await issue(shop, now + 100 * DAY), 100, now - DAY)
    await ticks.settle()
    assert set(map(tuple, (await events_of(suite, mine)).values())) == {
        ("license.expiring_soon", "license.grace_started")
    }
    await world.test.policies.update(shop.policy.policy_id, grace_period=timedelta(hours=1))
    assert await ticks.worker.tick() == 0, "what it takes to notice is not the caller's work"
    await ticks.settle()
    assert {types[-1] for types in (await events_of(suite, mine)).values()} == {"license.expired"}
    await world.test.policies.update(shop.policy.policy_id, display_name="Another name")
    assert not await ticks.worker.recheck(), "a change that moves no boundary costs nothing"
    await world.test.policies.update(shop.policy.policy_id, grace_period=2 * DAY)
    await ticks.settle()
    assert {len(types) for types in (await events_of(suite, mine)).values()} == {3}, "that grace has been told"
    assert (await world.test.licenses.get(mine[0])).status == LicenseStatus.active
    await world.test.policies.update(shop.policy.policy_id, grace_period=timedelta(hours=2))
    await ticks.settle()
    assert {tuple(types[2:]) for types in (await events_of(suite, mine)).values()} == {("license.expired",) * 2}
    async with suite.admin() as conn:
        assert await conn.fetchval("SELECT count(*) FROM license.boundary_recheck") == 0


async def test_a_license_that_waits_for_its_first_validation_has_no_end_before(
    suite: Suite, world: World, ticks: Ticking
) -> None:
    shop = await open_shop(world.test, duration=timedelta(hours=1), expiration_basis="FROM_FIRST_VALIDATION")
    made = await shop.issue()
    await ticks.settle()
    assert await told(world, made.license.license_id) == ["created"]
    assert (await world.test.validate(key=made.key)).valid
    await ticks.settle()
    assert await told(world, made.license.license_id) == ["created", "updated", "expiring_soon"]


async def test_many_policies_that_change_are_all_noticed_by_one_look(
    suite: Suite, world: World, ticks: Ticking
) -> None:
    now = await record_now(suite)
    shops = [await open_shop(world.test, code=f"SHOP{n}", grace_period=30 * DAY) for n in range(5)]
    mine = [await issue(shop, now - DAY) for shop in shops[1:]]  # and one policy that has no license
    await ticks.settle()
    for shop in shops:
        await world.test.policies.update(shop.policy.policy_id, grace_period=None)
    running = asyncio.create_task(ticks.worker.run(1.0))

    async def all_expired() -> bool:
        return {types[-1] for types in (await events_of(suite, mine)).values()} == {"license.expired"}

    try:
        await until(all_expired, 2.5)
    finally:
        running.cancel()
        await asyncio.wait({running})
