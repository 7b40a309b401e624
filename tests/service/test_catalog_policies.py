"""Policies: what the templates fill, what a request overrides, and consent to unlimited machines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from lictor import AlreadyExists, FailedPrecondition, NotFound
from lictor.license.v1.catalog_service_pb2 import CreatePolicyRequest, Policy, PolicyTemplate, UpdatePolicyRequest

from tests.helpers.builders import events, open_shop, refused, send, unchanged
from tests.helpers.suite import Suite, World

DAY = 86400
TEMPLATES: dict[str, dict[str, Any]] = {
    "custom": {"max_machines": None},
    "desktop_app": {"max_machines": 2},
    "cli_tool": {"max_machines": 3, "offline_max_ttl": 7 * DAY},
    "saas": {
        "max_machines": None, "floating": True, "require_fingerprint": False, "offline_allowed": False,
        "require_heartbeat": True, "heartbeat_interval": 1440 * 60, "duration": 30 * DAY,
    },
    "trial": {"max_machines": 1, "offline_allowed": False, "is_trial": True, "duration": 14 * DAY},
}  # fmt: skip
GENERAL: dict[str, Any] = {
    "duration": None, "is_trial": False, "floating": False, "require_fingerprint": True, "require_heartbeat": False,
    "heartbeat_interval": 600, "offline_allowed": True, "offline_max_ttl": 14 * DAY,
}  # fmt: skip
TERMS = {*GENERAL, "max_machines"}
KEPT = {"etag", "revision", "update_time"}


def terms_of(policy: Policy) -> dict[str, Any]:
    """The terms as plain values; absent is None."""
    found: dict[str, Any] = {}
    for name in TERMS:
        value = getattr(policy, name)
        present = not policy.DESCRIPTOR.fields_by_name[name].has_presence or policy.HasField(cast("Any", name))
        found[name] = (
            (value.ToTimedelta().total_seconds() if isinstance(value, Duration) else value) if present else None
        )
    return found


async def product_of(world: World) -> str:
    return (await world.test.products.create(code="SHOP", display_name="Shop")).product.product_id


async def full_policy(world: World) -> Policy:
    shop = await open_shop(
        world.test, template="saas", duration=timedelta(days=9), is_trial=True, max_machines=5, external_id="plan-1",
        labels={"x": "x"}, metadata={"x": 1}, heartbeat_interval=timedelta(minutes=2),
        offline_max_ttl=timedelta(hours=2), offline_allowed=True, require_heartbeat=True, require_fingerprint=False,
    )  # fmt: skip
    return shop.policy


@pytest.mark.parametrize("name", TEMPLATES)
async def test_a_template_fills_what_the_request_leaves_out(suite: Suite, world: World, name: str) -> None:
    request = CreatePolicyRequest(
        product_id=await product_of(world), display_name="x", template=PolicyTemplate.Kind.Value(name),
        allow_unlimited=name == "custom",
    )  # fmt: skip
    made = (await send(suite, request, world.test_key)).policy
    assert terms_of(made) == GENERAL | TEMPLATES[name]
    assert PolicyTemplate.Kind.Name(made.template) == name
    assert await world.test.policies.get(made.policy_id) == made


async def test_no_template_is_custom(world: World) -> None:
    made = await world.test.policies.create(product_id=await product_of(world), display_name="x", max_machines=1)
    assert made.policy.template == PolicyTemplate.custom


@pytest.mark.parametrize("name", TEMPLATES)
async def test_a_field_of_the_request_wins_over_the_template(suite: Suite, world: World, name: str) -> None:
    base = GENERAL | TEMPLATES[name]
    flags: dict[str, Any] = {key: not base[key] for key in base if isinstance(base[key], bool)}
    request = CreatePolicyRequest(
        product_id=await product_of(world), display_name="x", template=PolicyTemplate.Kind.Value(name), max_machines=9,
        duration=Duration(seconds=3600), heartbeat_interval=Duration(seconds=60), offline_max_ttl=Duration(seconds=3600),
        **flags,
    )  # fmt: skip
    made = (await send(suite, request, world.test_key)).policy
    expected = {"duration": 3600, "heartbeat_interval": 60, "offline_max_ttl": 3600, "max_machines": 9}
    assert terms_of(made) == flags | expected


async def test_perpetual_wins_over_a_templates_duration(suite: Suite, world: World) -> None:
    request = CreatePolicyRequest(
        product_id=await product_of(world), display_name="x", template=PolicyTemplate.trial, perpetual=True
    )
    assert terms_of((await send(suite, request, world.test_key)).policy)["duration"] is None


async def test_unlimited_machines_take_consent(suite: Suite, world: World) -> None:
    product_id = await product_of(world)
    async with unchanged(suite, world):
        error = await refused(suite, CreatePolicyRequest(product_id=product_id, display_name="x"), world.test_key)
    assert (error.reason, dict(error.info.metadata)) == ("UNLIMITED_NOT_CONFIRMED", {"field": "max_machines"})
    confirmed = CreatePolicyRequest(product_id=product_id, display_name="x", allow_unlimited=True)
    assert not (await send(suite, confirmed, world.test_key)).policy.HasField("max_machines")
    desktop = CreatePolicyRequest(
        product_id=product_id, display_name="x", allow_unlimited=True, template=PolicyTemplate.desktop_app
    )
    assert not (await send(suite, desktop, world.test_key)).policy.HasField("max_machines")


async def test_taking_a_limit_away_takes_consent_too(suite: Suite, world: World) -> None:
    policy = (await open_shop(world.test)).policy
    async with unchanged(suite, world):
        for mask in (["max_machines"], ["*"]):
            request = UpdatePolicyRequest(
                policy_id=policy.policy_id, display_name="x", update_mask=FieldMask(paths=mask)
            )
            error = await refused(suite, request, world.test_key)
            assert (error.reason, dict(error.info.metadata)) == ("UNLIMITED_NOT_CONFIRMED", {"field": "max_machines"})
    request = UpdatePolicyRequest(
        policy_id=policy.policy_id, allow_unlimited=True, update_mask=FieldMask(paths=["max_machines"])
    )
    assert not (await send(suite, request, world.test_key)).policy.HasField("max_machines")


async def test_consent_alone_changes_nothing_that_the_mask_does_not_name(suite: Suite, world: World) -> None:
    policy = (await open_shop(world.test)).policy
    request = UpdatePolicyRequest(
        policy_id=policy.policy_id,
        allow_unlimited=True,
        display_name="y",
        update_mask=FieldMask(paths=["display_name"]),
    )
    after = (await send(suite, request, world.test_key)).policy
    assert (after.display_name, after.max_machines) == ("y", policy.max_machines)


CHANGES: dict[str, Any] = {
    "external_id": "plan-2", "display_name": "other", "duration": Duration(seconds=3600), "is_trial": False,
    "max_machines": 6, "floating": False, "require_fingerprint": True, "require_heartbeat": False,
    "heartbeat_interval": Duration(seconds=60), "offline_allowed": False, "offline_max_ttl": Duration(seconds=3600),
    "labels": {"y": "y"}, "metadata": {"y": 2},
}  # fmt: skip


async def update(suite: Suite, world: World, before: Policy, mask: list[str] | None, **fields: Any) -> set[str]:
    """Updates, and names the fields that are other than before."""
    request = UpdatePolicyRequest(policy_id=before.policy_id, **fields)
    if mask is not None:
        request.update_mask.CopyFrom(FieldMask(paths=mask))
    after: Policy = (await send(suite, request, world.test_key)).policy
    assert after == await world.test.policies.get(before.policy_id)
    assert after.revision == before.revision + 1
    return {
        field.name
        for field in Policy.DESCRIPTOR.fields
        if getattr(after, field.name) != getattr(before, field.name) and field.name not in KEPT
    }


@pytest.mark.parametrize("name", sorted(CHANGES))
async def test_a_mask_changes_its_field_alone(suite: Suite, world: World, name: str) -> None:
    assert await update(suite, world, await full_policy(world), [name], **CHANGES) == {name}


@pytest.mark.parametrize("mask", [None, []])
async def test_without_a_mask_the_fields_that_are_set_change(
    suite: Suite, world: World, mask: list[str] | None
) -> None:
    changed = await update(suite, world, await full_policy(world), mask, is_trial=False, max_machines=8)
    assert changed == {"is_trial", "max_machines"}, "false is set, not absent"


async def test_a_star_puts_the_general_terms_where_the_request_has_none(suite: Suite, world: World) -> None:
    before = await full_policy(world)
    await update(suite, world, before, ["*"], display_name="x", allow_unlimited=True)
    after = await world.test.policies.get(before.policy_id)
    assert terms_of(after) == GENERAL | {"max_machines": None}
    assert (after.external_id, dict(after.labels), MessageToDict(after.metadata)) == ("", {}, {})
    assert (after.product_id, after.template) == (before.product_id, before.template)


HOUR, CENTURY = 3600, 36500 * DAY


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [("duration", HOUR, CENTURY), ("heartbeat_interval", 60, 90 * DAY), ("offline_max_ttl", HOUR, 90 * DAY)],
)
async def test_terms_have_bounds(suite: Suite, world: World, field: str, least: int, most: int) -> None:
    policy = (await open_shop(world.test)).policy
    for seconds in (least, most):
        term: dict[str, Any] = {field: Duration(seconds=seconds)}
        changed = UpdatePolicyRequest(policy_id=policy.policy_id, **term)
        assert terms_of((await send(suite, changed, world.test_key)).policy)[field] == seconds
    async with unchanged(suite, world):
        for seconds in (least - 1, most + 1, 0, -1, 2**60):
            term = {field: Duration(seconds=seconds)}
            for request in (
                UpdatePolicyRequest(policy_id=policy.policy_id, **term),
                CreatePolicyRequest(product_id=policy.product_id, display_name="x", max_machines=1, **term),
            ):
                error = await refused(suite, request, world.test_key)
                assert (error.reason, error.violations) == ("FIELD_INVALID", [(field, "DURATION_OUT_OF_RANGE")])


async def test_an_update_cannot_move_a_policy_or_leave_it_without_a_name(suite: Suite, world: World) -> None:
    policy = (await open_shop(world.test)).policy
    async with unchanged(suite, world):
        for mask, violations in (
            (["product_id", "template"], [("update_mask", "FIELD_UNKNOWN")] * 2),
            (["display_name"], [("display_name", "REQUIRED")]),
        ):
            request = UpdatePolicyRequest(policy_id=policy.policy_id, update_mask=FieldMask(paths=mask))
            assert (await refused(suite, request, world.test_key)).violations == violations


async def test_an_etag_guards_update_and_delete(suite: Suite, world: World) -> None:
    policy, policies = (await open_shop(world.test)).policy, world.test.policies
    now = (await policies.update(policy.policy_id, display_name="b", etag=policy.etag)).policy
    async with unchanged(suite, world):
        for attempt in (
            policies.update(policy.policy_id, display_name="c", etag=policy.etag),
            policies.delete(policy.policy_id, etag=policy.etag),
        ):
            with pytest.raises(Exception, match="ETAG_MISMATCH"):
                await attempt
    await policies.delete(policy.policy_id, etag=now.etag)


async def test_external_ids(suite: Suite, world: World) -> None:
    policy = await full_policy(world)
    assert await world.test.policies.get(external_id="plan-1") == policy
    async with unchanged(suite, world):
        with pytest.raises(AlreadyExists) as caught:
            await world.test.policies.create(
                product_id=policy.product_id, display_name="x", max_machines=1, external_id="plan-1"
            )
    assert caught.value.reason == "EXTERNAL_ID_TAKEN"


async def test_a_policy_belongs_to_a_product_that_is_there(suite: Suite, world: World) -> None:
    live = await open_shop(world.live)
    async with unchanged(suite, world):
        for product_id in ("prod_nope", live.product.product_id):
            with pytest.raises(NotFound) as caught:
                await world.test.policies.create(product_id=product_id, display_name="x", max_machines=1)
            assert (caught.value.reason, caught.value.metadata) == ("PRODUCT_NOT_FOUND", {"id": product_id})


async def test_a_policy_in_use_stays(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue_in("revoked")
    async with unchanged(suite, world):
        with pytest.raises(FailedPrecondition) as caught:
            await world.test.policies.delete(shop.policy.policy_id)
    assert caught.value.reason == "RESOURCE_IN_USE"
    assert caught.value.metadata == {"id": shop.policy.policy_id, "usedBy": "license"}
    await world.test.licenses.delete(made.license.license_id)
    await world.test.policies.delete(shop.policy.policy_id)
    with pytest.raises(NotFound):
        await world.test.policies.get(shop.policy.policy_id)
    told = await events(suite, shop.policy.policy_id)
    assert [event["type"] for event in told] == ["policy.created", "policy.deleted"]


async def test_policies_are_listed_by_product(world: World) -> None:
    one, two = await open_shop(world.test, code="ONE"), await open_shop(world.test, code="TWO")
    assert [found async for found in world.test.policies.list(product_id=one.product.product_id)] == [one.policy]
    assert [found async for found in world.test.policies.list()] == [one.policy, two.policy]
    assert [found async for found in world.test.policies.list(product_id="prod_nope")] == []
