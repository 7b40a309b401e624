"""Products: what they keep, what changes them, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from lictor import AlreadyExists, FailedPrecondition, NotFound
from lictor.license.v1.catalog_service_pb2 import (
    CreateProductRequest,
    DeleteProductRequest,
    Product,
    UpdateProductRequest,
)

from tests.helpers.builders import events, open_shop, refused, send, unchanged, uuid
from tests.helpers.suite import Suite, World


async def full_product(world: World) -> Product:
    made = await world.test.products.create(
        code="PROAPP", slug="pro-app", display_name="Pro App", url="https://example.com/pro", external_id="sku-1",
        labels={"tier": "gold"}, metadata={"a": {"b": [1, "x"]}},
    )  # fmt: skip
    return made.product


async def test_a_product_keeps_what_it_is_made_with(world: World) -> None:
    made = await full_product(world)
    assert made.product_id.startswith("prod_")
    assert await world.test.products.get(made.product_id) == made
    assert await world.test.products.get(external_id="sku-1") == made
    assert (made.code, made.slug, made.display_name, made.url) == (
        "PROAPP", "pro-app", "Pro App", "https://example.com/pro",
    )  # fmt: skip
    assert (dict(made.labels), MessageToDict(made.metadata)) == ({"tier": "gold"}, {"a": {"b": [1, "x"]}})
    assert (made.revision, made.create_time) == (1, made.update_time)


async def test_a_slug_is_the_code_in_lower_case_unless_it_is_given(world: World) -> None:
    assert (await world.test.products.create(code="AB12", display_name="x")).product.slug == "ab12"


@pytest.mark.parametrize(
    ("code", "slug", "field"), [("ONE", "new", "code"), ("NEW", "one", "slug"), ("NEW", "", None), ("ONE", "", "code")]
)
async def test_code_and_slug_are_unique_in_their_mode(
    suite: Suite, world: World, code: str, slug: str, field: str | None
) -> None:
    await world.test.products.create(code="ONE", display_name="x")
    if field is None:
        await world.test.products.create(code=code, slug=slug, display_name="x")
        return
    async with unchanged(suite, world):
        with pytest.raises(AlreadyExists) as caught:
            await world.test.products.create(code=code, slug=slug, display_name="x")
    assert (caught.value.reason, caught.value.metadata) == ("CODE_TAKEN", {"field": field})
    await world.live.products.create(code=code, slug=slug, display_name="x")


async def test_a_code_whose_lower_case_is_anothers_slug_is_taken(world: World) -> None:
    await world.test.products.create(code="AA", slug="bb", display_name="x")
    with pytest.raises(AlreadyExists) as caught:
        await world.test.products.create(code="BB", display_name="x")
    assert caught.value.metadata == {"field": "slug"}


async def test_an_external_id_is_unique(suite: Suite, world: World) -> None:
    await full_product(world)
    other = (await world.test.products.create(code="OTHER", display_name="x")).product
    async with unchanged(suite, world):
        for attempt in (
            world.test.products.create(code="NEW", display_name="x", external_id="sku-1"),
            world.test.products.update(other.product_id, external_id="sku-1"),
        ):
            with pytest.raises(AlreadyExists) as caught:
                await attempt
            assert (caught.value.reason, caught.value.metadata) == ("EXTERNAL_ID_TAKEN", {"field": "external_id"})


CHANGES: dict[str, Any] = {
    "external_id": "sku-2", "slug": "pro-2", "display_name": "Pro 2", "url": "http://example.org", "labels": {"x": "y"},
    "metadata": {"n": 1},
}  # fmt: skip


async def update(suite: Suite, world: World, before: Product, mask: list[str] | None, **fields: Any) -> set[str]:
    """Updates, and names the fields that are other than before."""
    request = UpdateProductRequest(product_id=before.product_id, **fields)
    if mask is not None:
        request.update_mask.CopyFrom(FieldMask(paths=mask))
    after: Product = (await send(suite, request, world.test_key)).product
    assert after == await world.test.products.get(before.product_id)
    assert after.revision == before.revision + 1
    return {
        field.name
        for field in Product.DESCRIPTOR.fields
        if getattr(after, field.name) != getattr(before, field.name)
        and field.name not in {"etag", "revision", "update_time"}
    }


@pytest.mark.parametrize("name", sorted(CHANGES))
async def test_a_mask_changes_its_field_alone(suite: Suite, world: World, name: str) -> None:
    assert await update(suite, world, await full_product(world), [name], **CHANGES) == {name}


@pytest.mark.parametrize("mask", [None, []])
async def test_without_a_mask_the_fields_that_are_set_change(
    suite: Suite, world: World, mask: list[str] | None
) -> None:
    before = await full_product(world)
    assert await update(suite, world, before, mask, url="http://a", display_name="b") == {"url", "display_name"}


async def test_a_star_replaces_all_but_what_cannot_change(suite: Suite, world: World) -> None:
    before = await full_product(world)
    assert await update(suite, world, before, ["*"], slug="s", display_name="d") == set(CHANGES)
    after = await world.test.products.get(before.product_id)
    assert (after.code, after.url, after.external_id, dict(after.labels)) == ("PROAPP", "", "", {})


@pytest.mark.parametrize(
    ("mask", "fields", "violations"),
    [
        (["*"], {}, [("display_name", "REQUIRED"), ("slug", "REQUIRED")]),
        (["slug"], {}, [("slug", "REQUIRED")]),
        (["code"], {}, [("update_mask", "FIELD_UNKNOWN")]),
        (["product_id", "etag"], {}, [("update_mask", "FIELD_UNKNOWN")] * 2),
        (None, {}, [("update_mask", "REQUIRED")]),
        ([], {}, [("update_mask", "REQUIRED")]),
        (None, {"slug": "My_App", "url": "x"}, [("slug", "SLUG_INVALID"), ("url", "URL_INVALID")]),
    ],
)
async def test_what_an_update_cannot_say(
    suite: Suite, world: World, mask: list[str] | None, fields: dict[str, Any], violations: list[tuple[str, str]]
) -> None:
    before = await full_product(world)
    request = UpdateProductRequest(product_id=before.product_id, **fields)
    if mask is not None:
        request.update_mask.CopyFrom(FieldMask(paths=mask))
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", violations)


async def test_a_slug_can_only_change_into_a_free_one(suite: Suite, world: World) -> None:
    made = await full_product(world)
    await world.test.products.create(code="OTHER", display_name="x")
    async with unchanged(suite, world):
        with pytest.raises(AlreadyExists) as caught:
            await world.test.products.update(made.product_id, slug="other")
    assert (caught.value.reason, caught.value.metadata) == ("CODE_TAKEN", {"field": "slug"})


async def test_an_etag_guards_update_and_delete(suite: Suite, world: World) -> None:
    made = await full_product(world)
    now = (await world.test.products.update(made.product_id, display_name="b", etag=made.etag)).product
    assert now.etag != made.etag
    async with unchanged(suite, world):
        for request in (
            UpdateProductRequest(product_id=made.product_id, display_name="c", etag=made.etag),
            DeleteProductRequest(product_id=made.product_id, etag=made.etag),
        ):
            error = await refused(suite, request, world.test_key)
            assert (error.reason, dict(error.info.metadata)) == ("ETAG_MISMATCH", {"id": made.product_id})
    await world.test.products.delete(made.product_id, etag=now.etag)


async def test_a_product_in_use_stays(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    async with unchanged(suite, world):
        with pytest.raises(FailedPrecondition) as caught:
            await world.test.products.delete(shop.product.product_id)
    assert caught.value.reason == "RESOURCE_IN_USE"
    assert caught.value.metadata == {"id": shop.product.product_id, "usedBy": "policy"}
    await world.test.policies.delete(shop.policy.policy_id)
    await world.test.products.delete(shop.product.product_id)
    with pytest.raises(NotFound):
        await world.test.products.get(shop.product.product_id)


async def test_what_a_deleted_product_was_called_is_free_again(suite: Suite, world: World) -> None:
    made = await full_product(world)
    request_id = uuid()
    await world.test.products.delete(made.product_id, reason="end of sale", request_id=request_id)
    again = await full_product(world)
    assert again.product_id != made.product_id
    async with unchanged(suite, world):
        await world.test.products.delete(made.product_id, reason="end of sale", request_id=request_id)
    told = await events(suite, made.product_id)
    assert [event["type"] for event in told] == ["product.created", "product.deleted"]
    assert told[-1]["reason"] == "end of sale"


async def test_each_change_is_one_event(suite: Suite, world: World) -> None:
    made = await full_product(world)
    await world.test.products.update(made.product_id, display_name="b")
    told = await events(suite, made.product_id)
    assert [(event["type"], event["subject_seq"], event["in_outbox"]) for event in told] == [
        ("product.created", 1, True),
        ("product.updated", 2, True),
    ]
    assert told[-1]["data"]["display_name"] == "b"


def _struct(value: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(value)
    return made


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"a": {"b": {"c": {"d": {}}}}}, "TOO_DEEP"),
        ({f"k{n}": n for n in range(65)}, "TOO_MANY"),
        ({"k": "v" * 16 * 1024}, "TOO_LARGE"),
        ({"k": float("inf")}, "OUT_OF_RANGE"),
        ({"k": [float("nan")]}, "OUT_OF_RANGE"),
    ],
)
async def test_metadata_has_bounds(suite: Suite, world: World, metadata: dict[str, Any], reason: str) -> None:
    request = CreateProductRequest(code="AB", display_name="x", metadata=_struct(metadata))
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("metadata", reason)])


async def test_metadata_may_fill_its_bounds(world: World) -> None:
    metadata = {f"k{n}": "ü" * 100 for n in range(60)} | {"deep": {"er": {"est": [1e300, -0.5, True, None]}}}
    made = await world.test.products.create(code="AB", display_name="x" * 255, metadata=metadata)
    assert MessageToDict(made.product.metadata) == metadata
    assert (await world.test.products.get(made.product.product_id)) == made.product


async def test_labels_have_bounds(suite: Suite, world: World) -> None:
    full = {f"k{n}": "v" * 255 for n in range(64)}
    made = await world.test.products.create(code="AB", display_name="x", labels=full)
    assert dict(made.product.labels) == full
    request = CreateProductRequest(code="CD", display_name="x", labels={**full, "K": "v", "a b": "v", "k1": "v" * 256})
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert error.violations[0] == ("labels", "TOO_MANY")
    assert {(field, reason) for field, reason in error.violations[1:]} == {
        ('labels["K"]', "LABEL_INVALID"),
        ('labels["a b"]', "LABEL_INVALID"),
        ('labels["k1"]', "LABEL_INVALID"),
    }
