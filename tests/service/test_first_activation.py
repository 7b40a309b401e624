"""FROM_FIRST_ACTIVATION: a license expires by its first machine, wherever it is read, and nothing is written to it."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from lictor import FailedPrecondition, LictorError
from lictor.common.v1.common_pb2 import View
from lictor.license.v1.license_service_pb2 import License, LicenseImport, LicenseMark, LicenseStatus

from services.license import store
from shared.rules.expiry import effective_expiry
from tests.helpers.builders import Shop, ago, ahead, at, events, open_shop, shift, unchanged
from tests.helpers.machines import has_machines
from tests.helpers.suite import Suite, World
from tests.helpers.watching import watching
from tests.helpers.workers import Ticking, record_now, ticking, told

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest_asyncio.fixture(loop_scope="session", name="ticks")
async def _ticks(suite: Suite) -> AsyncGenerator[Ticking]:
    async with ticking(suite) as one:
        await one.settle()
        yield one


async def waiting(world: World, **terms: Any) -> tuple[Shop, License]:
    """A license whose time waits for its first machine; it would be 30 days."""
    given: dict[str, Any] = {"expiration_basis": "FROM_FIRST_ACTIVATION", "duration": 30 * DAY} | terms
    shop = await open_shop(world.test, **given)
    made = (await shop.issue()).license
    assert (made.HasField("expire_time"), made.expiry_anchored) == (False, False)
    return shop, made


async def listed(world: World, status: str) -> set[str]:
    return {one.license_id async for one in world.test.licenses.list(status=status)}


async def test_time_counts_from_the_first_machine(suite: Suite, world: World) -> None:
    _, license_ = await waiting(world)
    licenses, first = world.test.licenses, ago(days=2)
    await has_machines(suite, world, license_.license_id, first)
    found = await licenses.get(license_.license_id)
    assert (found.expire_time, found.expiry_anchored) == (at(first + 30 * DAY), True)
    assert (found.revision, found.etag) == (license_.revision, license_.etag), "nothing was written"
    assert [one async for one in licenses.list()] == [found]
    assert len(await events(suite, license_.license_id)) == 1
    await has_machines(suite, world, license_.license_id, first, machines=0)
    assert await licenses.get(license_.license_id) == found, "it does not matter what became of the machine"
    again = (await licenses.suspend(license_.license_id)).license
    assert again.expire_time == found.expire_time
    (*_, last) = await events(suite, license_.license_id)
    assert last["data"]["expires_at"] == (first + 30 * DAY).isoformat()
    assert last["data"]["expiry_anchored_at"] is None


async def test_it_counts_from_no_earlier_than_the_start(suite: Suite, world: World) -> None:
    shop, _ = await waiting(world)
    start = ahead(days=3)
    license_id = (await shop.issue(start_time=start)).license.license_id
    await has_machines(suite, world, license_id, ago(days=1))
    assert (await world.test.licenses.get(license_id)).expire_time == at(start + 30 * DAY)


async def test_the_machines_of_another_account_or_basis_do_not_count(suite: Suite, world: World) -> None:
    _, license_ = await waiting(world)
    async with suite.admin() as conn:
        for account_id, mode in (("acc_1", "TEST"), (world.account_id, "LIVE")):
            await conn.execute(
                "INSERT INTO machine.seat (account_id, mode, license_id, machines, first_activated_at) "
                "VALUES ($1, $2, $3, 1, $4)",
                account_id, mode, license_.license_id, ago(days=400),
            )  # fmt: skip
    assert await world.test.licenses.get(license_.license_id) == license_
    other = (await (await open_shop(world.test, code="OTHER", expiration_basis="FROM_FIRST_USE")).issue()).license
    await has_machines(suite, world, other.license_id, ago(days=400))
    assert await world.test.licenses.get(other.license_id) == other


STATES: list[tuple[dict[str, Any], int, tuple[str, list[int]]]] = [
    # What the policy says, how many days ago the first machine came, and what the license is by now.
    ({}, 26, ("active", [])),
    ({}, 28, ("active", [LicenseMark.EXPIRING])),
    ({}, 31, ("expired", [])),
    ({"grace_period": 2 * DAY}, 31, ("active", [LicenseMark.IN_GRACE])),
    ({"grace_period": 2 * DAY}, 33, ("expired", [])),
    ({"expiration_strategy": "REVOKE"}, 31, ("revoked", [])),
    ({"expiration_strategy": "ALLOW_ACCESS"}, 31, ("expired", [])),
]


@pytest.mark.parametrize(("terms", "age", "expected"), STATES)
async def test_it_is_found_by_the_state_that_it_is_in(
    suite: Suite, world: World, terms: dict[str, Any], age: int, expected: tuple[str, list[int]]
) -> None:
    _, license_ = await waiting(world, **terms)
    assert await listed(world, "active") == {license_.license_id}
    await has_machines(suite, world, license_.license_id, ago(days=age))
    found = await world.test.licenses.get(license_.license_id)
    assert (LicenseStatus.Status.Name(found.status), list(found.marks)) == expected
    for one in ("active", "suspended", "expired", "revoked", "banned"):
        assert await listed(world, one) == ({license_.license_id} if one == expected[0] else set()), one


async def test_postgres_and_the_rule_agree(suite: Suite) -> None:
    """What a list is narrowed by, against what its licenses then say."""
    dice = random.Random(6)
    moments = [None, *(datetime(2026, 1, 1, tzinfo=UTC) + DAY * dice.uniform(-900, 900) for _ in range(9))]
    spans = [HOUR, 30 * DAY, 365 * DAY, timedelta(microseconds=3_600_000_001)]
    cases = [
        (dice.choice(moments), dice.choice(moments), dice.choice([None, *spans]), dice.choice(spans))
        for _ in range(500)
    ]
    statement = f"""
        SELECT {store.EXPIRY} AS expires_at
          FROM unnest($1::timestamptz[], $2::timestamptz[], $3::interval[], $4::interval[])
               WITH ORDINALITY AS g (first_activated_at, starts_at, trial_duration, duration, n),
               LATERAL (SELECT g.first_activated_at) AS a, LATERAL (SELECT g.starts_at, NULL::timestamptz AS expires_at) AS l,
               LATERAL (SELECT g.trial_duration, g.duration) AS p
         ORDER BY g.n
    """
    async with suite.admin() as conn:
        rows = await conn.fetch(statement, *([case[n] for case in cases] for n in range(4)))
    for row, (first, starts_at, trial, duration) in zip(rows, cases, strict=True):
        assert row["expires_at"] == effective_expiry(
            expires_at=None,
            anchored=False,
            expiration_basis="FROM_FIRST_ACTIVATION",
            first_duration=trial or duration,
            starts_at=starts_at,
            first_activated_at=first,
        )


async def test_until_it_is_set_the_expiry_follows_the_policy(suite: Suite, world: World) -> None:
    shop, license_ = await waiting(world)
    licenses, policies, first = world.test.licenses, world.test.policies, ago(days=2)
    await has_machines(suite, world, license_.license_id, first)
    await policies.update(shop.policy.policy_id, duration=60 * DAY)
    assert (await licenses.get(license_.license_id)).expire_time == at(first + 60 * DAY)
    renewed = (await licenses.renew(license_.license_id)).license
    assert (renewed.expire_time, renewed.revision) == (at(first + 120 * DAY), 2)
    await policies.update(shop.policy.policy_id, duration=DAY)
    assert await licenses.get(license_.license_id) == renewed
    assert (await licenses.renew(license_.license_id)).license.expire_time == at(first + 121 * DAY)


async def test_an_expired_one_comes_back(suite: Suite, world: World) -> None:
    _, license_ = await waiting(world)
    await has_machines(suite, world, license_.license_id, ago(days=31))
    licenses, until = world.test.licenses, ahead(days=9)
    async with unchanged(suite, world):
        with pytest.raises(LictorError):
            await licenses.reinstate(license_.license_id)
    back = (await licenses.reinstate(license_.license_id, expire_time=until)).license
    assert (back.status, back.expire_time) == (LicenseStatus.active, at(until))
    assert await licenses.get(license_.license_id) == back


async def test_an_expiry_that_is_set_waits_for_no_machine(suite: Suite, world: World) -> None:
    shop, license_ = await waiting(world)
    until = ahead(days=9)
    changed = (await world.test.licenses.update(license_.license_id, expire_time=until)).license
    made = (await shop.issue(expire_time=until)).license
    for one in (changed, made):
        await has_machines(suite, world, one.license_id, ago(days=2))
        assert (await world.test.licenses.get(one.license_id)).expire_time == at(until)


async def test_it_goes_under_another_policy_with_what_counted(suite: Suite, world: World) -> None:
    shop, license_ = await waiting(world)
    licenses, first = world.test.licenses, ago(days=2)
    await has_machines(suite, world, license_.license_id, first)
    other: dict[str, Any] = {"product_id": shop.product.product_id, "display_name": "x", "max_machines": 1}
    plain = (await world.test.policies.create(**other, duration=DAY)).policy
    anew = (
        await world.test.policies.create(
            **other, duration=DAY, expiration_basis="FROM_FIRST_ACTIVATION", transfer_strategy="RESET_EXPIRY"
        )
    ).policy
    moved = (await licenses.change_policy(license_.license_id, plain.policy_id)).license
    assert moved.expire_time == at(first + 30 * DAY)
    assert await licenses.get(license_.license_id) == moved
    # It has had its first machine, so that its time begins anew now, also where it was not looked for before.
    moved = (await licenses.change_policy(license_.license_id, anew.policy_id)).license
    assert moved.expire_time == at(moved.update_time.ToDatetime() + DAY)
    assert await licenses.get(license_.license_id) == moved


async def test_licenses_from_elsewhere_wait_too_and_are_the_same_later(suite: Suite, world: World) -> None:
    shop, _ = await waiting(world)
    item = LicenseImport(policy_id=shop.policy.policy_id, external_id="x", key="THEIR-KEY-1")
    [made] = (await world.test.licenses.import_batch([item])).licenses
    await has_machines(suite, world, made.license_id, ago(days=2))
    [again] = (await world.test.licenses.import_batch([item])).licenses
    assert (again.already_there, again.license_id) == (True, made.license_id)
    elsewhere = LicenseImport(
        policy_id=shop.policy.policy_id, external_id="y", create_time=at(ago(days=90)), key="THEIR-KEY-2"
    )
    [old] = (await world.test.licenses.import_batch([elsewhere])).licenses
    assert not (await world.test.licenses.get(old.license_id)).HasField("expire_time")


async def test_a_first_machine_is_told_to_who_watches(suite: Suite, world: World) -> None:
    _, license_ = await waiting(world)
    async with watching(suite, world.test_key, view=View.BASIC) as watcher:
        assert not watcher.held[license_.license_id].license.HasField("expire_time")
        first = ago(days=2)
        await has_machines(suite, world, license_.license_id, first)
        await watcher.until(lambda: watcher.held[license_.license_id].license.expire_time == at(first + 30 * DAY))


async def test_what_time_does_is_told_from_the_first_machine_on(suite: Suite, world: World, ticks: Ticking) -> None:
    _, license_ = await waiting(world, duration=HOUR)
    await ticks.settle()
    assert await told(world, license_.license_id) == ["created"]
    async with suite.admin() as conn:
        due_at = "SELECT due_at - now() FROM license.boundary WHERE license_id = $1"
        wait = await conn.fetchval(due_at, license_.license_id)
        assert timedelta(minutes=5) < wait <= timedelta(minutes=6)
    now = await record_now(suite)
    await has_machines(suite, world, license_.license_id, now - 2 * HOUR)
    await shift(suite, "license.boundary", "license_id", license_.license_id, due_at=now)
    await ticks.settle()
    assert await told(world, license_.license_id) == ["created", "expiring_soon", "expired"]
    (*_, last) = await events(suite, license_.license_id)
    assert last["data"]["boundary_time"] == last["data"]["expires_at"] == (now - HOUR).isoformat()
    await ticks.settle()
    assert len(await told(world, license_.license_id)) == 3


@pytest_asyncio.fixture(loop_scope="session", name="worlds")
async def _worlds(suite: Suite) -> AsyncGenerator[list[World]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(suite.world()) for _ in range(3)]


async def test_a_batch_of_many_tenants_is_looked_at_in_each(suite: Suite, worlds: list[World], ticks: Ticking) -> None:
    now = await record_now(suite)
    made = [(world, (await waiting(world, duration=HOUR, expiration_strategy="REVOKE"))[1]) for world in worlds]
    for n, (world, license_) in enumerate(made):
        if n:  # the first waits on
            await has_machines(suite, world, license_.license_id, now - n * 2 * HOUR)
    await ticks.settle()
    for n, (world, license_) in enumerate(made):
        ended = ["expiring_soon", "expired", "revoked"] if n else []
        assert await told(world, license_.license_id) == ["created", *ended]
        found = await world.test.licenses.get(license_.license_id)
        assert found.status == (LicenseStatus.revoked if n else LicenseStatus.active)
        if n:
            assert found.expire_time == at(now - n * 2 * HOUR + HOUR)


ORDER = ["UNIQUE_PER_LICENSE", "UNIQUE_PER_POLICY", "UNIQUE_PER_PRODUCT", "UNIQUE_PER_ACCOUNT"]


async def test_machines_are_made_unique_among_more_only_once_they_are_gone(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id
    await shop.issue()
    policies, licenses = world.test.policies, world.test.licenses
    other: dict[str, Any] = {"product_id": shop.product.product_id, "display_name": "x", "max_machines": 1}
    wide = (await policies.create(**other, machine_uniqueness="UNIQUE_PER_POLICY")).policy.policy_id
    mine = shop.policy.policy_id
    await has_machines(suite, world, license_id, ago(days=2))
    async with unchanged(suite, world):
        for call, policy_id in (
            *((policies.update(mine, machine_uniqueness=word), mine) for word in ORDER[1:]),
            (licenses.change_policy(license_id, wide), wide),
        ):
            with pytest.raises(FailedPrecondition) as caught:
                await call
            assert (caught.value.reason, dict(caught.value.metadata)) == (
                "POLICY_INCOMPATIBLE",
                {"policyId": policy_id},
            )
    assert (await policies.update(mine, component_uniqueness="UNIQUE_PER_ACCOUNT", floating=True)).policy.floating
    await has_machines(suite, world, license_id, ago(days=2), machines=0)
    await licenses.change_policy(license_id, wide)
    await policies.update(mine, machine_uniqueness="UNIQUE_PER_ACCOUNT")
    await has_machines(suite, world, license_id, ago(days=2))
    await policies.update(wide, machine_uniqueness="UNIQUE_PER_LICENSE")
