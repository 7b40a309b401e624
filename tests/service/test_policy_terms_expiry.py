"""When licenses expire by their policy's terms, and what becomes of them then."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lictor import AsyncLictor, LictorError, ValidationResult
from lictor.license.v1.license_service_pb2 import License, LicenseMark, LicenseStatus

from tests.helpers.builders import Shop, ago, ahead, at, events, open_shop, shift, unchanged, uuid
from tests.helpers.suite import Suite, World

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STRATEGIES = ("RESTRICT_ACCESS", "REVOKE", "MAINTAIN_ACCESS", "ALLOW_ACCESS")
USED: dict[str, Any] = {"require_check_in": True, "check_in_interval": "YEAR"}


def name_of(license_: License) -> str:
    return LicenseStatus.Status.Name(license_.status)


def marks_of(license_: License) -> list[str]:
    return [LicenseMark.Kind.Name(mark) for mark in license_.marks]


async def statuses(client: AsyncLictor, license_id: str) -> set[str]:
    """The filters that find the license."""
    found = set[str]()
    for status in LicenseStatus.Status.keys()[1:]:
        listed = [one async for one in client.licenses.list(status=status)]
        assert all(name_of(one) == status for one in listed)
        found |= {status for one in listed if one.license_id == license_id}
    return found


async def refusal_of(call: Any) -> str:
    """OK, or why not."""
    try:
        await call
    except LictorError as error:
        return error.reason
    return "OK"


async def over_shop(world: World, **terms: Any) -> tuple[Shop, str]:
    """A license that expired an hour ago."""
    shop = await open_shop(world.test, **terms)
    made = await shop.issue(start_time=ago(days=2), expire_time=ago(hours=1))
    return shop, made.license.license_id


@pytest.mark.parametrize("grace", [timedelta(0), HOUR / 2, HOUR - timedelta(microseconds=1)])
@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_past_expiry_and_grace(suite: Suite, world: World, strategy: str, grace: timedelta) -> None:
    shop, license_id = await over_shop(world, expiration_strategy=strategy, grace_period=grace, **USED)
    client, lenient, revokes = world.test, strategy in STRATEGIES[2:], strategy == "REVOKE"
    verdict = await client.validate(license_id=license_id)
    codes = ("REVOKED", "EXPIRED") if revokes else ("EXPIRED",)
    assert (verdict.all_codes, verdict.valid) == (codes, lenient)
    assert verdict.check_in_due_time is not None
    next_change = at(verdict.check_in_due_time) if lenient else Timestamp()
    assert verdict.decision.valid_until == next_change
    status = "revoked" if revokes else "expired"
    found = await client.licenses.get(license_id)
    assert (name_of(found), marks_of(found)) == (status, [])
    assert await statuses(client, license_id) == {status}

    used = "OK" if lenient else "STATE_TRANSITION_INVALID"
    changed = "STATE_TRANSITION_INVALID" if revokes else "OK"
    licenses = client.licenses
    assert await refusal_of(licenses.increment_uses(license_id, 2)) == used
    assert await refusal_of(licenses.check_in(license_id)) == used
    assert await refusal_of(licenses.reset_uses(license_id)) == changed
    assert await refusal_of(licenses.suspend(license_id)) == "STATE_TRANSITION_INVALID"
    assert await refusal_of(licenses.reinstate(license_id, expire_time=ahead(days=1))) == changed
    if revokes:
        async with unchanged(suite, world):
            assert await refusal_of(licenses.renew(license_id)) == "STATE_TRANSITION_INVALID"
            assert (
                await refusal_of(licenses.update(license_id, expire_time=ahead(days=9))) == "STATE_TRANSITION_INVALID"
            )
        return
    assert (await client.validate(license_id=license_id)).code == "VALID"
    other = (await shop.issue(start_time=ago(days=2), expire_time=ago(hours=1))).license
    renewed = (await licenses.renew(other.license_id)).license
    assert (name_of(renewed), renewed.expire_time) == ("active", at(other.expire_time.ToDatetime() + 30 * DAY))


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_in_the_grace_period_a_license_is_active(suite: Suite, world: World, strategy: str) -> None:
    shop = await open_shop(world.test, expiration_strategy=strategy, grace_period=2 * HOUR, **USED)
    until = ago(hours=1)
    made = await shop.issue(start_time=ago(days=2), expire_time=until)
    client, license_id = world.test, made.license.license_id
    verdict = await client.validate(key=made.key, view="BASIC")
    assert (verdict.all_codes, verdict.valid) == (("IN_GRACE",), True)
    assert (verdict.expire_time, verdict.grace_end_time) == (until, until + 2 * HOUR)
    assert verdict.decision.valid_until == at(until + 2 * HOUR)
    assert verdict.license is not None
    assert (name_of(verdict.license), marks_of(verdict.license)) == ("active", ["IN_GRACE"])
    assert verdict.license.grace_end_time == at(until + 2 * HOUR)
    assert await statuses(client, license_id) == {"active"}
    await client.licenses.increment_uses(license_id)
    await client.licenses.check_in(license_id)
    await shift(suite, "license.license", "license_id", license_id, expires_at=ago(hours=2))
    assert name_of(await client.licenses.get(license_id)) == ("revoked" if strategy == "REVOKE" else "expired")
    await client.policies.update(shop.policy.policy_id, grace_period=3 * HOUR)
    assert (await client.validate(key=made.key)).code == "IN_GRACE"


async def test_other_states_outlast_the_end(world: World) -> None:
    shop = await open_shop(world.test, expiration_strategy="REVOKE")
    made = await shop.issue_in("suspended")
    await world.test.licenses.update(made.license.license_id, start_time=ago(days=2), expire_time=ago(hours=1))
    assert (await world.test.validate(key=made.key)).all_codes == ("SUSPENDED", "EXPIRED")
    assert await statuses(world.test, made.license.license_id) == {"suspended"}


async def test_a_license_that_is_about_to_expire_is_marked(world: World) -> None:
    shop = await open_shop(world.test)
    for days, expected in ((1, ["EXPIRING"]), (2.99, ["EXPIRING"]), (3.01, [])):
        assert marks_of((await shop.issue(expire_time=ahead(days=days))).license) == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_change_of_the_strategy_reaches_every_license_at_once(world: World, strategy: str) -> None:
    shop, license_id = await over_shop(world)
    policies = world.test.policies
    await policies.update(shop.policy.policy_id, expiration_strategy=strategy)
    verdict = await world.test.validate(license_id=license_id)
    assert verdict.code == ("REVOKED" if strategy == "REVOKE" else "EXPIRED")
    await policies.update(shop.policy.policy_id, expiration_strategy=None)
    assert (await world.test.validate(license_id=license_id)).valid is False


async def waiting(world: World, basis: str, **terms: Any) -> tuple[Shop, License, str]:
    """A license whose time waits."""
    shop = await open_shop(world.test, expiration_basis=basis, **terms)
    made = await shop.issue()
    assert not made.license.HasField("expire_time")
    assert made.license.expiry_anchored is False
    return shop, made.license, made.key


async def test_time_counts_from_the_first_validation(suite: Suite, world: World) -> None:
    _, license_, key = await waiting(world, "FROM_FIRST_VALIDATION")
    await world.test.licenses.increment_uses(license_.license_id)
    assert not (await world.test.licenses.get(license_.license_id)).expiry_anchored
    first = await world.test.validate(key=key)
    assert first.expire_time is not None
    assert timedelta(0) <= first.expire_time - 30 * DAY - first.evaluated_at < 10 * timedelta(seconds=1)
    assert first.decision.valid_until == at(first.expire_time)
    after = await world.test.licenses.get(license_.license_id)
    assert (after.expire_time, after.expiry_anchored, after.revision) == (at(first.expire_time), True, 2)
    assert (await world.test.validate(license_id=license_.license_id)).expire_time == first.expire_time
    told = await events(suite, license_.license_id)
    assert [event["type"] for event in told] == ["license.created", "license.usage.incremented", "license.updated"]
    assert told[-1]["data"]["expires_at"] == first.expire_time.isoformat()
    assert (told[-1]["subject_seq"], told[-1]["reason"]) == (3, "first validation")
    assert key not in str([event["data"] for event in told])


async def test_twenty_first_validations_are_one(suite: Suite, world: World) -> None:
    _, license_, key = await waiting(world, "FROM_FIRST_VALIDATION")
    verdicts = await asyncio.gather(*(world.test.validate(key=key) for _ in range(20)))
    assert {(verdict.code, verdict.expire_time) for verdict in verdicts} == {("VALID", verdicts[0].expire_time)}
    assert (await world.test.licenses.get(license_.license_id)).revision == 2
    assert len(await events(suite, license_.license_id)) == 2


async def test_a_validation_that_fails_anchors_nothing(suite: Suite, world: World) -> None:
    shop, license_, key = await waiting(world, "FROM_FIRST_VALIDATION")
    late = await shop.issue(start_time=ahead(days=1))
    async with unchanged(suite, world):
        assert (await world.test.validate(key=key, product="OTHER")).code == "PRODUCT_SCOPE_MISMATCH"
        assert (await world.test.validate(key=key, entitlements=["x"])).code == "ENTITLEMENTS_MISSING"
        assert (await world.test.validate(key=late.key)).code == "NOT_YET_VALID"
    await world.test.licenses.suspend(license_.license_id)
    assert (await world.test.validate(key=key)).code == "SUSPENDED"
    assert not (await world.test.licenses.get(license_.license_id)).expiry_anchored


async def overtaken(suite: Suite, world: World, license_: License, change: str) -> ValidationResult:
    """A validation that has decided, and waits for another change of the license to be done."""
    async with suite.admin() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute("SELECT FROM license.license WHERE license_id = $1 FOR UPDATE", license_.license_id)
        await conn.execute(change, license_.license_id)
        asking = asyncio.ensure_future(world.test.validate(license_id=license_.license_id))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        while not await conn.fetchval(waits):
            assert not asking.done()
            await asyncio.sleep(0.01)
        await transaction.commit()
    return await asking


@pytest.mark.parametrize("status", ["suspended", "revoked", "banned"])
@pytest.mark.parametrize("counted", [False, True])
async def test_a_license_that_is_stopped_during_its_first_validation_is_not_anchored(
    suite: Suite, world: World, status: str, counted: bool
) -> None:
    terms: dict[str, Any] = {"uses_counted_by": "VALIDATION", "max_uses": 1} if counted else {}
    _, license_, _ = await waiting(world, "FROM_FIRST_VALIDATION", **terms)
    change = f"UPDATE license.license SET status = '{status}' WHERE license_id = $1"
    assert (await overtaken(suite, world, license_, change)).all_codes == (status.upper(),)
    after = await world.test.licenses.get(license_.license_id)
    assert (after.expiry_anchored, after.revision, after.uses) == (False, 1, 0)


async def test_a_first_validation_that_is_too_late_for_the_last_use_anchors_nothing(suite: Suite, world: World) -> None:
    _, license_, _ = await waiting(world, "FROM_FIRST_VALIDATION", uses_counted_by="VALIDATION", max_uses=1)
    change = """
        INSERT INTO license.license_usage (account_id, mode, license_id, uses)
        SELECT account_id, mode, license_id, 1 FROM license.license WHERE license_id = $1
    """
    assert (await overtaken(suite, world, license_, change)).code == "USES_EXCEEDED"
    after = await world.test.licenses.get(license_.license_id)
    assert (after.expiry_anchored, after.revision, after.uses) == (False, 1, 1)
    assert len(await events(suite, license_.license_id)) == 1


async def test_a_first_validation_that_counts_is_anchored(suite: Suite, world: World) -> None:
    _, license_, key = await waiting(world, "FROM_FIRST_VALIDATION", uses_counted_by="VALIDATION", max_uses=2)
    first, second = [await world.test.validate(key=key) for _ in range(2)]
    assert (first.uses_left, second.uses_left) == (1, 0)
    assert first.expire_time == second.expire_time is not None
    told = [event["type"].removeprefix("license.") for event in await events(suite, license_.license_id)]
    assert told == ["created", "updated", "usage.incremented", "usage.incremented", "limit_reached"]


async def test_time_counts_from_the_first_use(suite: Suite, world: World) -> None:
    _, license_, key = await waiting(world, "FROM_FIRST_USE")
    verdict = await world.test.validate(key=key)
    assert (verdict.code, verdict.expire_time) == ("VALID", None)
    licenses = world.test.licenses
    await licenses.reset_uses(license_.license_id)
    assert not (await licenses.get(license_.license_id)).expiry_anchored
    used = (await licenses.increment_uses(license_.license_id)).license
    assert used.expire_time == at(used.update_time.ToDatetime() + 30 * DAY)
    assert (used.expiry_anchored, used.revision, used.uses) == (True, 2, 1)
    again = (await licenses.increment_uses(license_.license_id)).license
    assert (again.expire_time, again.revision, again.uses) == (used.expire_time, 2, 2)
    told = await events(suite, license_.license_id)
    assert [event["data"]["expires_at"] is not None for event in told] == [False, False, True, True]


async def test_a_use_that_is_refused_anchors_nothing(suite: Suite, world: World) -> None:
    _, license_, _ = await waiting(world, "FROM_FIRST_USE", max_uses=2)
    async with unchanged(suite, world):
        assert await refusal_of(world.test.licenses.increment_uses(license_.license_id, 3)) == "INSUFFICIENT_USAGE"
    assert not (await world.test.licenses.get(license_.license_id)).expiry_anchored


async def test_a_counted_validation_is_a_first_use(world: World) -> None:
    _, _, key = await waiting(world, "FROM_FIRST_USE", uses_counted_by="VALIDATION", max_uses=2)
    first = await world.test.validate(key=key)
    assert (first.uses_left, first.expire_time is None) == (1, False)
    assert (await world.test.validate(key=key)).expire_time == first.expire_time


@pytest.mark.parametrize("until", [None, ahead(days=5)])
async def test_an_expiry_that_is_set_waits_for_nothing(world: World, until: Any) -> None:
    shop, license_, _ = await waiting(world, "FROM_FIRST_VALIDATION")
    after = (await world.test.licenses.update(license_.license_id, expire_time=until)).license
    assert (after.expiry_anchored, after.HasField("expire_time")) == (True, until is not None)
    assert (await world.test.validate(license_id=license_.license_id)).expire_time == until
    if until is not None:
        made = await shop.issue(expire_time=until)
        assert made.license.expiry_anchored
        assert (await world.test.validate(key=made.key)).expire_time == until


async def test_a_license_that_waits_cannot_be_renewed(world: World) -> None:
    _, license_, _ = await waiting(world, "FROM_FIRST_USE")
    assert await refusal_of(world.test.licenses.renew(license_.license_id)) == "POLICY_INCOMPATIBLE"


async def test_a_retried_first_use_is_one(world: World) -> None:
    _, license_, _ = await waiting(world, "FROM_FIRST_USE")
    again = uuid()
    calls = (world.test.licenses.increment_uses(license_.license_id, request_id=again) for _ in range(5))
    answers = [answer.license for answer in await asyncio.gather(*calls)]
    assert {(one.uses, one.expire_time.ToNanoseconds()) for one in answers} == {
        (1, answers[0].expire_time.ToNanoseconds())
    }
