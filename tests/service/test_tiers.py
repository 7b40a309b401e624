"""Tiers: editions of a product in an order, the licenses that have one, and validations that require one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from lictor import AlreadyExists, FailedPrecondition, InvalidArgument, LictorError, NotFound
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1.catalog_service_pb2 import Tier
from lictor.license.v1.license_service_pb2 import ChangeTierRequest, CreateLicenseRequest

from tests.helpers.builders import Shop, ahead, events, key_with, open_shop, refused, send, shift, unchanged
from tests.helpers.suite import Suite, World


async def tier_of(shop: Shop, slug: str, position: int = 0, **more: Any) -> Tier:
    made = await shop.client.tiers.create(
        product_id=shop.product.product_id, slug=slug, display_name=slug.title(), position=position, **more
    )
    return made.tier


async def test_a_tier_is_what_the_caller_said(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await tier_of(shop, "pro_2", 7, external_id="ed-1", labels={"a": "b"}, metadata={"n": 1})
    assert (made.slug, made.display_name, made.position, made.external_id) == ("pro_2", "Pro_2", 7, "ed-1")
    assert (made.product_id, dict(made.labels), made.metadata["n"]) == (shop.product.product_id, {"a": "b"}, 1)
    assert made.tier_id.startswith("tier_")
    assert await world.test.tiers.get(made.tier_id) == made
    assert await world.test.tiers.get(external_id="ed-1") == made
    [created] = await events(suite, made.tier_id)
    assert (created["type"], created["data"]["slug"]) == ("tier.created", "pro_2")


@pytest.mark.parametrize("slug", ["Pro", "pro-tier", "tier 1", "", "x" * 64, "é", "pro\n"])
async def test_slugs_are_lower_case_digits_and_underscores(suite: Suite, world: World, slug: str) -> None:
    shop = await open_shop(world.test)
    made = await tier_of(shop, "x" * 63)
    product_id = shop.product.product_id
    for request in (
        catalog.CreateTierRequest(product_id=product_id, slug=slug, display_name="x"),
        catalog.UpdateTierRequest(tier_id=made.tier_id, slug=slug, update_mask=FieldMask(paths=["slug"])),
    ):
        async with unchanged(suite, world):
            error = await refused(suite, request, world.test_key)
        assert (error.reason, error.violations) == ("FIELD_INVALID", [("slug", "SLUG_INVALID" if slug else "REQUIRED")])


async def test_every_bad_field_is_named(suite: Suite, world: World) -> None:
    request = catalog.CreateTierRequest(slug="Pro", position=-1)
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert {field for field, _ in error.violations or ()} == {"product_id", "slug", "display_name", "position"}


async def test_slugs_are_unique_in_a_product_and_external_ids_in_a_mode(suite: Suite, world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    pro = await tier_of(shop, "pro", external_id="x")
    free = await tier_of(shop, "free")
    await tier_of(other, "pro")
    await tier_of(await open_shop(world.live), "pro", external_id="x")
    async with unchanged(suite, world):
        for call, reason, field in (
            (tier_of(shop, "pro"), "CODE_TAKEN", "slug"),
            (world.test.tiers.update(free.tier_id, slug="pro"), "CODE_TAKEN", "slug"),
            (tier_of(other, "max", external_id="x"), "EXTERNAL_ID_TAKEN", "external_id"),
        ):
            with pytest.raises(AlreadyExists) as caught:
                await call
            assert (caught.value.reason, caught.value.metadata) == (reason, {"field": field})
    assert (await world.test.tiers.get(pro.tier_id)).revision == 1


UPDATES: dict[str, tuple[Any, Any]] = {
    "external_id": ("new", ""),
    "slug": ("new", None),
    "display_name": ("New", None),
    "position": (3, 0),
    "labels": ({"k": "v"}, {}),
    "metadata": ({"k": "v"}, {}),
}
"""Of each field: a new value, and the one that a mask without a value leaves; None where it cannot be empty."""


@pytest.mark.parametrize("field", UPDATES)
async def test_an_update_changes_what_it_names_alone(suite: Suite, world: World, field: str) -> None:
    shop = await open_shop(world.test)
    before = await tier_of(shop, "pro", 9, external_id="x", labels={"x": "x"}, metadata={"x": 1})
    value, empty = UPDATES[field]
    request = catalog.UpdateTierRequest(
        tier_id=before.tier_id, update_mask=FieldMask(paths=[field]), slug="no", display_name="No", position=1
    )
    cast("Message", request).ClearField(field)
    request.MergeFrom(catalog.UpdateTierRequest(**{field: value}))
    after = (await send(suite, request, world.test_key)).tier
    changed = {
        known.name for known in Tier.DESCRIPTOR.fields if getattr(before, known.name) != getattr(after, known.name)
    }
    assert changed == {field, "update_time", "etag", "revision"}
    assert await world.test.tiers.get(before.tier_id) == after
    assert [event["type"] for event in await events(suite, before.tier_id)] == ["tier.created", "tier.updated"]
    if empty is not None:
        cleared = catalog.UpdateTierRequest(tier_id=before.tier_id, update_mask=FieldMask(paths=[field]))
        assert (await send(suite, cleared, world.test_key)).tier == await world.test.tiers.get(before.tier_id)
        now = getattr(await world.test.tiers.get(before.tier_id), field)
        assert (dict(now) if isinstance(empty, dict) else now) == empty


async def test_an_etag_guards_update_and_delete(suite: Suite, world: World) -> None:
    made = await tier_of(await open_shop(world.test), "pro")
    await world.test.tiers.update(made.tier_id, position=2)
    async with unchanged(suite, world):
        for call in (
            world.test.tiers.update(made.tier_id, position=3, etag=made.etag),
            world.test.tiers.delete(made.tier_id, etag=made.etag),
        ):
            with pytest.raises(LictorError) as caught:
                await call
            assert caught.value.reason == "ETAG_MISMATCH"


async def test_a_tier_that_a_license_has_stays_and_so_does_a_product_with_tiers(suite: Suite, world: World) -> None:
    product = (await world.test.products.create(code="ALONE", display_name="x")).product
    tier = (await world.test.tiers.create(product_id=product.product_id, slug="pro", display_name="x")).tier
    policy = (await world.test.policies.create(product_id=product.product_id, display_name="x", max_machines=1)).policy
    issued = await world.test.licenses.create(policy_id=policy.policy_id, tier_id=tier.tier_id)
    async with unchanged(suite, world):
        with pytest.raises(FailedPrecondition) as caught:
            await world.test.tiers.delete(tier.tier_id)
    assert caught.value.metadata == {"id": tier.tier_id, "usedBy": "license"}
    await world.test.licenses.delete(issued.license.license_id)
    await world.test.policies.delete(policy.policy_id)
    async with unchanged(suite, world):
        with pytest.raises(FailedPrecondition) as caught:
            await world.test.products.delete(product.product_id)
    assert caught.value.metadata == {"id": product.product_id, "usedBy": "tier"}
    await world.test.tiers.delete(tier.tier_id, reason="gone")
    with pytest.raises(NotFound):
        await world.test.tiers.get(tier.tier_id)
    assert (await events(suite, tier.tier_id))[-1]["reason"] == "gone"
    await world.test.products.delete(product.product_id)


async def test_tiers_are_listed_by_product(world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    mine = [(await tier_of(shop, slug)).tier_id for slug in ("a", "b", "c")]
    theirs = (await tier_of(other, "a")).tier_id
    listed = [tier.tier_id async for tier in world.test.tiers.list(product_id=shop.product.product_id, page_size=2)]
    assert listed == mine
    assert [tier.tier_id async for tier in world.test.tiers.list()] == [*mine, theirs]


async def test_licenses_are_listed_by_tier(world: World) -> None:
    shop = await open_shop(world.test)
    pro = await tier_of(shop, "pro")
    await shop.issue()
    made = await shop.issue(tier_id=pro.tier_id)
    assert made.license.tier_id == pro.tier_id
    assert [found.license_id async for found in world.test.licenses.list(tier_id=pro.tier_id)] == [
        made.license.license_id
    ]


async def test_a_license_gets_tiers_of_its_own_product_only(suite: Suite, world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    foreign = await tier_of(other, "pro")
    made = await shop.issue()
    async with unchanged(suite, world):
        for request in (
            CreateLicenseRequest(policy_id=shop.policy.policy_id, tier_id=foreign.tier_id),
            ChangeTierRequest(license_id=made.license.license_id, tier_id=foreign.tier_id),
        ):
            error = await refused(suite, request, world.test_key)
            assert (error.code, error.violations) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                [("tier_id", "OTHER_PRODUCT")],
            )


async def test_a_changed_tier_holds_when_the_call_returns(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    pro, free = await tier_of(shop, "pro", 10), await tier_of(shop, "free")
    made = await shop.issue(tier_id=pro.tier_id)
    license_id = made.license.license_id
    for _ in range(3):
        assert (await world.test.validate(key=made.key, required_tier="pro")).valid
        changed = await world.test.licenses.change_tier(license_id, free.tier_id, reason="downgrade")
        assert changed.license.tier_id == free.tier_id
        result = await world.test.validate(key=made.key, required_tier="pro")
        assert (result.code, result.tier, result.tier_id) == ("TIER_SCOPE_MISMATCH", "free", free.tier_id)
        await world.test.licenses.change_tier(license_id, None)
        result = await world.test.validate(key=made.key)
        assert (result.code, result.tier, result.tier_id) == ("VALID", "", "")
        await world.test.licenses.change_tier(license_id, pro.tier_id)
    told = [event for event in await events(suite, license_id) if event["type"] == "license.tier.updated"]
    assert [(event["data"]["tier_id"], event["reason"]) for event in told[:3]] == [
        (free.tier_id, "downgrade"),
        (None, ""),
        (pro.tier_id, ""),
    ]


@pytest.mark.parametrize(
    ("slug", "required", "code"),
    [
        ("pro", "pro", "VALID"),
        ("pro", "free", "VALID"),
        ("pro", "max", "TIER_SCOPE_MISMATCH"),
        ("pro", "also_pro", "TIER_SCOPE_MISMATCH"),
        ("pro", "none_such", "TIER_SCOPE_MISMATCH"),
        ("pro", "theirs", "TIER_SCOPE_MISMATCH"),
        ("pro", "", "VALID"),
        ("", "free", "TIER_SCOPE_MISMATCH"),
        ("", "", "VALID"),
    ],
)
async def test_a_required_tier_is_met_by_itself_and_those_above(
    world: World, slug: str, required: str, code: str
) -> None:
    shop = await open_shop(world.test)
    ids = {"": ""}
    for name, position in (("free", 0), ("pro", 10), ("also_pro", 10), ("max", 20)):
        ids[name] = (await tier_of(shop, name, position)).tier_id
    await tier_of(await open_shop(world.test, code="OTHER"), "theirs")
    made = await shop.issue(tier_id=ids[slug])
    for asked in (
        world.test.validate(key=made.key, required_tier=required),
        world.test.validate(license_id=made.license.license_id, required_tier=required),
    ):
        result = await asked
        assert (result.code, result.all_codes, result.tier) == (code, (code,), slug)


async def test_the_tiers_place_among_the_codes(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    await tier_of(shop, "pro")
    for status in ("suspended", "expired", "revoked", "banned"):
        made = await shop.issue_in(status)
        result = await world.test.validate(key=made.key, required_tier="pro")
        assert result.all_codes == (status.upper(), "TIER_SCOPE_MISMATCH")
    made = await shop.issue()
    await shift(suite, "license.license", "license_id", made.license.license_id, starts_at=ahead(hours=1))
    result = await world.test.validate(key=made.key, required_tier="pro")
    assert result.all_codes == ("NOT_YET_VALID", "TIER_SCOPE_MISMATCH")
    unknown = await world.test.validate(key="SHOP-0000-0000-0000-0000", required_tier="pro")
    assert (unknown.all_codes, unknown.tier) == (("NOT_FOUND",), "")


async def test_what_is_said_of_a_tier_holds_for_its_licenses_at_once(world: World) -> None:
    shop = await open_shop(world.test)
    free, pro = await tier_of(shop, "free", 0), await tier_of(shop, "pro", 10)
    made = await shop.issue(tier_id=free.tier_id)
    assert not (await world.test.validate(key=made.key, required_tier="pro")).valid
    await world.test.tiers.update(free.tier_id, position=11)
    assert (await world.test.validate(key=made.key, required_tier="pro")).valid
    await world.test.tiers.update(pro.tier_id, position=11)
    assert not (await world.test.validate(key=made.key, required_tier="pro")).valid
    await world.test.tiers.update(free.tier_id, slug="basic")
    result = await world.test.validate(key=made.key, required_tier="basic")
    assert (result.valid, result.tier) == (True, "basic")


async def test_a_required_tier_is_a_slug(world: World) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await world.test.validate(key="x", required_tier="Pro")
    assert [(v.field, v.reason) for v in caught.value.violations] == [("required_tier", "SLUG_INVALID")]


async def test_a_tier_is_not_deleted_under_a_license_that_gets_it(world: World) -> None:
    """Raced: either the license has the tier and the tier is there, or the tier is gone and no license has it."""
    shop = await open_shop(world.test)
    for number in range(8):
        tier = await tier_of(shop, f"t{number}")
        made = await shop.issue()
        license_id = made.license.license_id
        change, deletion = await asyncio.gather(
            world.test.licenses.change_tier(license_id, tier.tier_id),
            world.test.tiers.delete(tier.tier_id),
            return_exceptions=True,
        )
        license_ = await world.test.licenses.get(license_id)
        if isinstance(deletion, BaseException):
            assert isinstance(deletion, FailedPrecondition)
            assert not isinstance(change, BaseException)
            assert license_.tier_id == tier.tier_id
        else:
            assert isinstance(change, NotFound)
            assert not license_.tier_id


async def test_scopes_of_tiers(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    tier = await tier_of(shop, "pro")
    async with suite.client(await key_with(world.test, "tiers:read")) as reader:
        assert await reader.tiers.get(tier.tier_id) == tier
        with pytest.raises(LictorError) as caught:
            await reader.tiers.update(tier.tier_id, position=1)
    assert caught.value.metadata == {"scope": "tiers:write"}
