"""Every (state, action) pair on real licenses: what is allowed happens once, and a refusal changes no row."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from lictor import AlreadyExists, FailedPrecondition, InvalidArgument, LictorError, NotFound
from lictor.license.v1 import license_service_pb2 as pb
from lictor.license.v1.license_service_pb2 import License, LicenseStatus

from tests.helpers.builders import (
    LIFE,
    Shop,
    ago,
    ahead,
    assert_same,
    at,
    events,
    open_shop,
    refused,
    send,
    shift,
    unchanged,
    uuid,
)
from tests.helpers.suite import Suite, World

STATUSES = ("active", "suspended", "expired", "revoked", "banned")
EVENT = {
    "suspend": "license.suspended", "reinstate": "license.reinstated", "renew": "license.renewed",
    "revoke": "license.revoked", "ban": "license.banned", "change_tier": "license.tier.updated",
    "update": "license.updated", "rotate_key": "license.key.rotated", "delete": "license.deleted",
    "change_policy": "license.policy.updated", "transfer": "license.customer.updated", "check_in": "license.checked_in",
    "increment_uses": "license.usage.incremented", "decrement_uses": "license.usage.decremented",
    "reset_uses": "license.usage.reset",
}  # fmt: skip


REQUEST: dict[str, type[Message]] = {
    "suspend": pb.SuspendLicenseRequest, "reinstate": pb.ReinstateLicenseRequest, "renew": pb.RenewLicenseRequest,
    "revoke": pb.RevokeLicenseRequest, "ban": pb.BanLicenseRequest, "change_tier": pb.ChangeTierRequest,
    "update": pb.UpdateLicenseRequest, "rotate_key": pb.RotateLicenseKeyRequest, "delete": pb.DeleteLicenseRequest,
    "change_policy": pb.ChangePolicyRequest, "transfer": pb.TransferLicenseRequest, "check_in": pb.CheckInLicenseRequest,
    "increment_uses": pb.IncrementUsesRequest, "decrement_uses": pb.DecrementUsesRequest,
    "reset_uses": pb.ResetUsesRequest,
}  # fmt: skip


USES = {"increment_uses", "decrement_uses", "reset_uses"}
"""The actions that are no change of the license itself: they have no etag, and make no revision."""


def request_of(action: str, license_: License, status: str) -> Message:
    """`license_` is anything that has the ids of a license."""
    fields: dict[str, Any] = {"license_id": license_.license_id}
    fields |= {"display_name": "other"} if action == "update" else {"reason": "because"}
    if action == "change_policy":
        fields["policy_id"] = license_.policy_id
    if action in USES:
        fields["request_id"] = uuid()
    if (status, action) == ("expired", "reinstate"):
        fields["expire_time"] = at(ahead(days=5))
    return REQUEST[action](**fields)


async def open_used(world: World) -> Shop:
    """A shop whose licenses must check in."""
    return await open_shop(world.test, require_check_in=True, check_in_interval="YEAR")


async def use(suite: Suite, world: World, license_id: str) -> None:
    """Counts a use, in whatever state the license is."""
    async with suite.admin() as conn:
        await conn.execute(
            "INSERT INTO license.license_usage (account_id, mode, license_id, uses) VALUES ($1, 'TEST', $2, 1)",
            world.account_id, license_id,
        )  # fmt: skip


def name_of(status: LicenseStatus.Status.ValueType) -> str:
    return LicenseStatus.Status.Name(status)


@pytest.mark.parametrize(("status", "action"), sorted(LIFE))
async def test_every_pair(suite: Suite, world: World, status: str, action: str) -> None:
    shop = await open_used(world)
    license_id = (await shop.issue_in(status)).license.license_id
    await use(suite, world, license_id)
    before = await world.test.licenses.get(license_id)
    assert name_of(before.status) == status
    known = await events(suite, license_id)
    request, expected = request_of(action, before, status), LIFE[status, action]

    if expected == "-":
        async with unchanged(suite, world):
            error = await refused(suite, request, world.test_key)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_TRANSITION_INVALID")
        assert dict(error.info.metadata) == {"from": status, "action": action}
        assert error.precondition is not None
        assert error.precondition[0] == "STATE_TRANSITION_INVALID"
        return

    answer = await send(suite, request, world.test_key)
    assert answer.revision_token.token
    if expected == "gone":
        with pytest.raises(NotFound):
            await world.test.licenses.get(license_id)
    else:
        after = await world.test.licenses.get(license_id)
        assert answer.license == after
        assert (name_of(after.status), after.revision) == (expected, before.revision + (action not in USES))
        assert (after.etag == before.etag) is (action in USES)
    new = (await events(suite, license_id))[len(known) :]
    assert [(event["type"], event["subject_seq"], event["in_outbox"]) for event in new] == [
        (EVENT[action], len(known) + 1, True)
    ]
    assert new[0]["reason"] == ("" if action == "update" else "because")
    assert new[0]["actor"] == (await world.test.whoami()).key_id


async def expiry_after_renewal(shop: Shop, license_id: str) -> tuple[License, License]:
    before = await shop.client.licenses.get(license_id)
    return before, (await shop.client.licenses.renew(license_id)).license


@pytest.mark.parametrize("status", ["active", "suspended", "expired"])
async def test_renewing_adds_the_policys_duration_to_the_expiry(world: World, status: str) -> None:
    shop = await open_shop(world.test, duration=timedelta(days=31, hours=1))
    before, after = await expiry_after_renewal(shop, (await shop.issue_in(status)).license.license_id)
    assert after.expire_time.ToDatetime() - before.expire_time.ToDatetime() == timedelta(days=31, hours=1)
    assert name_of(after.status) == ("suspended" if status == "suspended" else "active")


async def test_renewing_takes_the_policy_as_it_is_now(world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue_in("active")
    await world.test.policies.update(shop.policy.policy_id, duration=timedelta(days=7))
    before, after = await expiry_after_renewal(shop, made.license.license_id)
    assert after.expire_time.ToDatetime() - before.expire_time.ToDatetime() == timedelta(days=7)


async def test_what_is_long_over_stays_expired_until_it_is_renewed_often_enough(world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue(start_time=ago(days=100), expire_time=ago(days=45))
    _, once = await expiry_after_renewal(shop, made.license.license_id)
    assert name_of(once.status) == "expired"
    assert (await world.test.validate(key=made.key)).code == "EXPIRED"
    _, twice = await expiry_after_renewal(shop, made.license.license_id)
    assert name_of(twice.status) == "active"
    assert (await world.test.validate(key=made.key)).valid


async def test_a_suspended_license_stays_suspended_when_it_is_renewed(world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue_in("suspended")
    await world.test.licenses.renew(made.license.license_id)
    assert (await world.test.validate(key=made.key)).all_codes == ("SUSPENDED",)


@pytest.mark.parametrize("perpetual", ["license", "policy"])
async def test_what_never_expires_cannot_be_renewed(suite: Suite, world: World, perpetual: str) -> None:
    shop = await open_shop(world.test, duration=None if perpetual == "policy" else timedelta(days=30))
    made = await shop.issue(expire_time=ahead(days=3))
    if perpetual == "license":
        await world.test.licenses.update(made.license.license_id, expire_time=None)
    async with unchanged(suite, world):
        with pytest.raises(FailedPrecondition) as caught:
            await world.test.licenses.renew(made.license.license_id)
    assert caught.value.reason == "POLICY_INCOMPATIBLE"
    assert caught.value.metadata == {"policyId": shop.policy.policy_id}


async def test_no_renewal_leads_beyond_the_year_9999(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, duration=timedelta(days=36500))
    made = await shop.issue(expire_time=ahead(days=365 * 7900))
    async with unchanged(suite, world):
        with pytest.raises(InvalidArgument) as caught:
            await world.test.licenses.renew(made.license.license_id)
    assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "OUT_OF_RANGE")]


@pytest.mark.parametrize("when", ["absent", "past", "now"])
async def test_an_expired_license_is_reinstated_only_into_the_future(suite: Suite, world: World, when: str) -> None:
    made = await (await open_shop(world.test)).issue_in("expired")
    moment = {"absent": None, "past": ago(minutes=1), "now": ago()}[when]
    async with unchanged(suite, world):
        with pytest.raises(InvalidArgument) as caught:
            await world.test.licenses.reinstate(made.license.license_id, expire_time=moment)
    assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "MUST_BE_FUTURE")]


async def test_a_reinstated_license_is_valid_again_until_its_new_expiry(world: World) -> None:
    made = await (await open_shop(world.test)).issue_in("expired")
    until = ahead(hours=3)
    after = (await world.test.licenses.reinstate(made.license.license_id, expire_time=until)).license
    assert after.expire_time == at(until)
    result = await world.test.validate(key=made.key)
    assert (result.valid, result.expire_time) == (True, until)


async def test_only_an_expired_license_takes_a_new_expiry(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue_in("suspended")
    async with unchanged(suite, world):
        with pytest.raises(InvalidArgument) as caught:
            await world.test.licenses.reinstate(made.license.license_id, expire_time=ahead(days=1))
    assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "NOT_EXPIRED")]


async def test_a_suspension_does_not_stop_the_clock(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue_in("suspended")
    license_id = made.license.license_id
    await shift(suite, "license.license", "license_id", license_id, expires_at=ago(seconds=1))
    assert name_of((await world.test.licenses.get(license_id)).status) == "suspended"
    assert name_of((await world.test.licenses.reinstate(license_id)).license.status) == "expired"


async def test_why_a_license_was_stopped_is_told_until_it_works_again(world: World) -> None:
    licenses = world.test.licenses
    license_id = (await (await open_shop(world.test)).issue_in("active")).license.license_id
    assert (await licenses.suspend(license_id, reason="chargeback")).license.status_reason == "chargeback"
    assert (await licenses.renew(license_id)).license.status_reason == "chargeback"
    assert (await licenses.reinstate(license_id)).license.status_reason == ""
    assert (await licenses.revoke(license_id, reason="refunded")).license.status_reason == "refunded"


@pytest.mark.parametrize("status", STATUSES)
async def test_a_deleted_license_is_gone_and_its_key_is_never_free_again(
    suite: Suite, world: World, status: str
) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue_in(status)
    await world.test.licenses.delete(made.license.license_id)
    validate = world.test.validate
    for result in (await validate(key=made.key), await validate(license_id=made.license.license_id)):
        assert (result.code, result.license_id) == ("NOT_FOUND", "")
    async with unchanged(suite, world):
        for spelling in (made.key, made.key.lower()):
            with pytest.raises(AlreadyExists) as caught:
                await shop.issue(key=spelling)
            assert (caught.value.reason, caught.value.metadata) == ("KEY_TAKEN", {"field": "key"})
        for action in EVENT:
            error = await refused(suite, request_of(action, made.license, status), world.test_key)
            assert error.reason == "LICENSE_NOT_FOUND"


@pytest.mark.parametrize("action", sorted(set(EVENT) - USES - {"check_in"}))
async def test_a_stale_etag_is_refused_by_every_action(suite: Suite, world: World, action: str) -> None:
    made = await (await open_shop(world.test)).issue_in("suspended" if action == "reinstate" else "active")
    stale = request_of(action, made.license, "active")
    setattr(stale, "etag", "r0")  # noqa: B010 - each of these requests has an etag
    async with unchanged(suite, world):
        error = await refused(suite, stale, world.test_key)
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert dict(error.info.metadata) == {"id": made.license.license_id}
    fresh = await world.test.licenses.get(made.license.license_id)
    setattr(stale, "etag", fresh.etag)  # noqa: B010
    await send(suite, stale, world.test_key)


@pytest.mark.parametrize("action", sorted(EVENT))
async def test_a_retry_gets_the_first_answer_and_does_nothing(suite: Suite, world: World, action: str) -> None:
    made = await (await open_used(world)).issue_in("suspended" if action == "reinstate" else "active")
    await use(suite, world, made.license.license_id)
    request = request_of(action, made.license, "active")
    setattr(request, "request_id", uuid())  # noqa: B010 - each of these requests has a request_id
    first = await send(suite, request, world.test_key)
    async with unchanged(suite, world):
        assert_same(await send(suite, request, world.test_key), first)


async def test_the_events_of_a_license_tell_its_whole_life_without_gaps_and_without_its_key(
    suite: Suite, world: World
) -> None:
    made = await (await open_shop(world.test)).issue_in("active")
    license_id, licenses = made.license.license_id, world.test.licenses
    for step in (licenses.suspend, licenses.renew, licenses.reinstate, licenses.revoke):
        await step(license_id)
    with pytest.raises(LictorError):
        await licenses.suspend(license_id)
    await licenses.delete(license_id)
    told = await events(suite, license_id)
    assert [event["type"].removeprefix("license.") for event in told] == [
        "created", "suspended", "renewed", "reinstated", "revoked", "deleted",
    ]  # fmt: skip
    assert [event["subject_seq"] for event in told] == [1, 2, 3, 4, 5, 6]
    assert [event["data"]["status"] for event in told[:5]] == [
        "active", "suspended", "suspended", "active", "revoked",
    ]  # fmt: skip
    assert made.key.rsplit("-", 1)[-1] not in str([dict(event) for event in told])
