"""What a validation must name; renewals; other policies and other holders."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from lictor import LictorError
from lictor.license.v1.license_service_pb2 import CreateLicenseResponse, License, LicenseMark

from tests.helpers.builders import Shop, ago, ahead, at, events, open_shop, shift, unchanged
from tests.helpers.suite import Suite, World

DAY = timedelta(days=1)
SECONDS = timedelta(seconds=20)


def moment(license_: License) -> datetime:
    return license_.expire_time.ToDatetime()


def near(found: datetime, expected: datetime) -> bool:
    return abs(found - expected.replace(tzinfo=None)) < SECONDS


async def reason_of(call: Any) -> str:
    with pytest.raises(LictorError) as caught:
        await call
    return caught.value.reason


async def ada_shop(world: World, **terms: Any) -> tuple[Shop, CreateLicenseResponse]:
    """A license that Ada holds, who is known by all three names."""
    shop = await open_shop(world.test, **terms)
    made = await shop.issue(customer_email="Ada@Example.com")
    await world.test.customers.update(made.license.customer_id, subject_ref="user-1")
    return shop, made


ALL_SCOPES = dict.fromkeys(("require_product_scope", "require_policy_scope", "require_user_scope"), True)


@pytest.mark.parametrize("required", [False, True])
async def test_what_a_validation_names_must_be_so(world: World, required: bool) -> None:
    shop, made = await ada_shop(world, **(ALL_SCOPES if required else {}))
    other, eve = await open_shop(world.test, code="OTHER"), (await shop.issue(customer_email="eve@example.com")).license
    products = {
        shop.product.product_id: True,
        "SHOP": True,
        other.product.product_id: False,
        "OTHER": False,
        "shop": False,
    }
    policies = {shop.policy.policy_id: True, other.policy.policy_id: False, "pol_nobody": False}
    users: list[tuple[dict[str, str], bool]] = [
        ({"customer_id": made.license.customer_id}, True), ({"customer_email": "ada@example.com"}, True),
        ({"customer_email": "ADA@EXAMPLE.COM"}, True), ({"subject_ref": "user-1"}, True),
        ({"customer_id": eve.customer_id}, False), ({"customer_email": "eve@example.com"}, False),
        ({"subject_ref": "USER-1"}, False), ({"subject_ref": made.license.customer_id}, False),
    ]  # fmt: skip
    named: dict[str, Any] = {"product": "SHOP", "policy_id": shop.policy.policy_id, "subject_ref": "user-1"}

    async def codes(**asked: Any) -> tuple[str, ...]:
        verdict = await world.test.validate(key=made.key, **asked)
        assert verdict.valid is (verdict.all_codes == ("VALID",))
        return verdict.all_codes

    missing = ("PRODUCT_SCOPE_REQUIRED", "POLICY_SCOPE_REQUIRED", "USER_SCOPE_REQUIRED")
    assert await codes() == (missing if required else ("VALID",))
    for product, right in products.items():
        assert await codes(**named | {"product": product}) == (("VALID",) if right else ("PRODUCT_SCOPE_MISMATCH",))
    for policy_id, right in policies.items():
        assert await codes(**named | {"policy_id": policy_id}) == (("VALID",) if right else ("POLICY_SCOPE_MISMATCH",))
    for user, right in users:
        asked = {key: value for key, value in named.items() if key != "subject_ref"} | user
        assert await codes(**asked) == (("VALID",) if right else ("USER_SCOPE_MISMATCH",))
    wrong = {"product": "OTHER", "policy_id": other.policy.policy_id, "customer_id": eve.customer_id}
    assert await codes(**wrong) == ("PRODUCT_SCOPE_MISMATCH", "POLICY_SCOPE_MISMATCH", "USER_SCOPE_MISMATCH")
    if required:
        await world.test.policies.update(shop.policy.policy_id, require_product_scope=None, require_user_scope=False)
        assert await codes() == ("POLICY_SCOPE_REQUIRED",)


async def test_nobodys_license_is_no_users(world: World) -> None:
    made = await (await open_shop(world.test, require_user_scope=True)).issue()
    assert (await world.test.validate(key=made.key)).code == "USER_SCOPE_REQUIRED"
    users: list[dict[str, Any]] = [{"subject_ref": "user-1"}, {"customer_email": "a@b.c"}, {"customer_id": "cus_1"}]
    for user in users:
        assert (await world.test.validate(key=made.key, **user)).code == "USER_SCOPE_MISMATCH"


async def test_entitlements_that_there_are_not(world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    for asked, codes, missing in (
        (None, ("VALID",), ()),
        ([], ("ENTITLEMENTS_SCOPE_EMPTY",), ()),
        (["import", "export"], ("ENTITLEMENTS_MISSING",), ("import", "export")),
    ):
        verdict = await world.test.validate(key=made.key, entitlements=asked)
        assert (verdict.all_codes, verdict.missing, verdict.entitlements) == (codes, missing, ())


@pytest.mark.parametrize(
    ("basis", "ahead_of_now", "from_now"),
    [
        ("FROM_EXPIRY", 5, 15), ("FROM_EXPIRY", -1, 9), ("FROM_EXPIRY", -30, -20),
        ("FROM_NOW", 5, 10), ("FROM_NOW", -1, 10), ("FROM_NOW", -30, 10),
        ("FROM_NOW_IF_EXPIRED", 5, 15), ("FROM_NOW_IF_EXPIRED", -1, 9), ("FROM_NOW_IF_EXPIRED", -30, 10),
    ],
)  # fmt: skip
async def test_what_a_renewal_adds_to(suite: Suite, world: World, basis: str, ahead_of_now: int, from_now: int) -> None:
    shop = await open_shop(world.test, duration=10 * DAY, grace_period=2 * DAY, renewal_basis=basis)
    made = await shop.issue(start_time=ago(days=60), expire_time=ahead(days=ahead_of_now))
    renewed = (await world.test.licenses.renew(made.license.license_id)).license
    assert near(moment(renewed), ahead(days=from_now))
    assert (await world.test.validate(key=made.key)).valid is (from_now > 0)
    (*_, last) = await events(suite, renewed.license_id)
    assert (last["type"], last["subject_seq"]) == ("license.renewed", 2)
    assert datetime.fromisoformat(last["data"]["expires_at"]).replace(tzinfo=None) == moment(renewed)


async def test_a_renewal_ahead_of_the_start_counts_from_it(world: World) -> None:
    shop = await open_shop(world.test, duration=10 * DAY, renewal_basis="FROM_NOW")
    starts_at = ahead(days=30)
    made = await shop.issue(start_time=starts_at)
    renewed = (await world.test.licenses.renew(made.license.license_id)).license
    assert renewed.expire_time == made.license.expire_time == at(starts_at + 10 * DAY)


async def test_a_trial_lasts_its_trial_and_is_renewed_by_the_duration(world: World) -> None:
    shop = await open_shop(world.test, duration=30 * DAY, is_trial=True, trial_duration=7 * DAY)
    made = (await shop.issue()).license
    assert moment(made) == made.create_time.ToDatetime() + 7 * DAY
    verdict = await world.test.validate(license_id=made.license_id)
    assert (verdict.is_trial, verdict.expire_time is None) == (True, False)
    assert moment((await world.test.licenses.renew(made.license_id)).license) == moment(made) + 30 * DAY
    await world.test.policies.update(shop.policy.policy_id, trial_duration=14 * DAY)
    assert moment(await world.test.licenses.get(made.license_id)) == moment(made) + 30 * DAY
    assert near(moment((await shop.issue()).license), ahead(days=14))


async def test_a_trial_of_a_perpetual_policy_is_not_renewed(world: World) -> None:
    made = await (await open_shop(world.test, duration=None, is_trial=True, trial_duration=7 * DAY)).issue()
    assert near(moment(made.license), ahead(days=7))
    assert await reason_of(world.test.licenses.renew(made.license.license_id)) == "POLICY_INCOMPATIBLE"


async def policy_beside(shop: Shop, **terms: Any) -> str:
    """Another policy of the same product, which asks for no machine either."""
    chosen: dict[str, Any] = {"template": "desktop_app", "duration": 10 * DAY, "require_fingerprint": False, **terms}
    made = await shop.client.policies.create(product_id=shop.product.product_id, display_name="Other", **chosen)
    return made.policy.policy_id


@pytest.mark.parametrize(
    ("terms", "days", "anchored"),
    [
        ({"transfer_strategy": "KEEP_EXPIRY"}, 5, True),
        ({"transfer_strategy": "KEEP_EXPIRY", "expiration_basis": "FROM_FIRST_USE"}, 5, True),
        ({"transfer_strategy": "RESET_EXPIRY"}, 10, True),
        ({"transfer_strategy": "RESET_EXPIRY", "duration": None}, None, True),
        ({"transfer_strategy": "RESET_EXPIRY", "expiration_basis": "FROM_FIRST_VALIDATION"}, None, False),
        ({"transfer_strategy": "RESET_EXPIRY", "is_trial": True, "trial_duration": DAY}, 1, True),
    ],
)
async def test_the_expiry_under_another_policy(
    suite: Suite, world: World, terms: dict[str, Any], days: int | None, anchored: bool
) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue(expire_time=ahead(days=5))
    policy_id = await policy_beside(shop, **terms)
    answer = await world.test.licenses.change_policy(made.license.license_id, policy_id, reason="upgrade")
    after = answer.license
    assert (after.policy_id, after.expiry_anchored, after.revision) == (policy_id, anchored, 2)
    assert after == await world.test.licenses.get(after.license_id)
    assert near(moment(after), ahead(days=days)) if days else not after.HasField("expire_time")
    (*_, last) = await events(suite, after.license_id)
    assert (last["type"], last["subject_seq"], last["reason"]) == ("license.policy.updated", 2, "upgrade")
    assert (last["data"]["policy_id"], "terms" in last["data"]) == (policy_id, False)
    verdict = await world.test.validate(key=made.key)
    assert (verdict.policy_id, verdict.code) == (policy_id, "VALID")
    assert (verdict.expire_time is None) is (days is None and anchored)


async def test_a_policy_change_brings_its_terms_along(world: World) -> None:
    shop, made = await ada_shop(world, max_uses=1)
    client, license_id = world.test, made.license.license_id
    await client.licenses.increment_uses(license_id)
    assert (await client.validate(key=made.key)).code == "USES_EXCEEDED"
    asks = {"require_check_in": True, "check_in_interval": "DAY", "max_uses": 3, "require_user_scope": True}
    policy_id = await policy_beside(shop, **asks)
    await client.licenses.change_policy(license_id, policy_id)
    verdict = await client.validate(key=made.key)
    assert (verdict.all_codes, verdict.uses_left) == (("USER_SCOPE_REQUIRED",), 2)
    assert verdict.check_in_due_time is not None
    assert near(verdict.check_in_due_time.replace(tzinfo=None), ahead(days=1))
    assert (await client.validate(key=made.key, policy_id=shop.policy.policy_id)).code == "POLICY_SCOPE_MISMATCH"


async def test_a_policy_of_another_product_is_refused(suite: Suite, world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    license_id = (await shop.issue()).license.license_id
    change = world.test.licenses.change_policy
    async with unchanged(suite, world):
        assert await reason_of(change(license_id, other.policy.policy_id)) == "POLICY_INCOMPATIBLE"
        assert await reason_of(change(license_id, "pol_nobody")) == "POLICY_NOT_FOUND"
        assert await reason_of(change("lic_nobody", shop.policy.policy_id)) == "LICENSE_NOT_FOUND"


async def test_another_holder(suite: Suite, world: World) -> None:
    _, made = await ada_shop(world, require_user_scope=True)
    client, license_id = world.test, made.license.license_id
    after = (await client.licenses.transfer(license_id, customer_email="Eve@Example.com", customer_name="Eve")).license
    assert after.customer_id not in {"", made.license.customer_id}
    assert (await client.customers.get(email="eve@example.com")).display_name == "Eve"
    assert (await client.validate(key=made.key, subject_ref="user-1")).code == "USER_SCOPE_MISMATCH"
    assert (await client.validate(key=made.key, customer_email="EVE@example.com")).code == "VALID"
    await client.customers.ban(made.license.customer_id)
    async with unchanged(suite, world):
        assert await reason_of(client.licenses.transfer(license_id, subject_ref="user-1")) == "CUSTOMER_BANNED"
        assert await reason_of(client.licenses.transfer(license_id, customer_id="cus_nobody")) == "CUSTOMER_NOT_FOUND"
    nobodys = (await client.licenses.transfer(license_id)).license
    assert nobodys.customer_id == ""
    assert (await client.validate(key=made.key, customer_email="eve@example.com")).code == "USER_SCOPE_MISMATCH"
    told = await events(suite, license_id)
    assert [(event["type"], event["subject_seq"], event["data"]["customer_id"]) for event in told] == [
        ("license.created", 1, made.license.customer_id),
        ("license.customer.updated", 2, after.customer_id),
        ("license.customer.updated", 3, None),
    ]
    assert made.key not in str([dict(event) for event in told])
    assert [event["type"] for event in await events(suite, after.customer_id)] == ["customer.created"]


async def test_a_license_that_nobody_has_used_for_long_is_marked(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, require_check_in=True, check_in_interval="YEAR")
    license_id = (await shop.issue(start_time=ago(days=91), expire_time=ahead(days=90))).license.license_id
    for days, expected in ((89, []), (91, [LicenseMark.INACTIVE])):
        await shift(suite, "license.license", "license_id", license_id, created_at=ago(days=days))
        assert list((await world.test.licenses.get(license_id)).marks) == expected
    assert list((await world.test.licenses.check_in(license_id)).license.marks) == []
