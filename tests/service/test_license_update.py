"""Updates of licenses: what a mask names changes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from lictor.license.v1.license_service_pb2 import License, UpdateLicenseRequest

from tests.helpers.builders import Shop, ago, ahead, at, open_shop, refused, send, unchanged
from tests.helpers.suite import Suite, World

NEVER_CHANGES = ("license_id", "product_id", "policy_id", "customer_id", "key_hint", "create_time")


async def full_license(shop: Shop) -> License:
    made = await shop.issue(
        external_id="x", display_name="x", labels={"x": "x"}, metadata={"x": 1}, start_time=ago(days=1),
        expire_time=ahead(days=30), customer_email="ada@example.com",
    )  # fmt: skip
    return made.license


async def update(suite: Suite, world: World, before: License, mask: list[str] | None, **fields: Any) -> set[str]:
    """Updates, and names the fields that are other than before."""
    request = UpdateLicenseRequest(license_id=before.license_id, **fields)
    if mask is not None:
        request.update_mask.CopyFrom(FieldMask(paths=mask))
    after: License = (await send(suite, request, world.test_key)).license
    assert after == await world.test.licenses.get(before.license_id)
    for name in NEVER_CHANGES:
        assert getattr(after, name) == getattr(before, name)
    assert after.revision == before.revision + 1
    kept = {"etag", "revision", "update_time"}
    return {
        field.name
        for field in License.DESCRIPTOR.fields
        if getattr(after, field.name) != getattr(before, field.name) and field.name not in kept
    }


CHANGED: dict[str, Any] = {"external_id": "y", "display_name": "y", "labels": {"y": "y"}, "metadata": {"y": 2}}
FIELDS = {*CHANGED, "start_time", "expire_time"}


@pytest.mark.parametrize("name", sorted(CHANGED))
async def test_a_mask_changes_its_field_alone(suite: Suite, world: World, name: str) -> None:
    before = await full_license(await open_shop(world.test))
    assert await update(suite, world, before, [name], **CHANGED) == {name}


async def test_without_a_mask_the_fields_that_are_set_change(suite: Suite, world: World) -> None:
    before = await full_license(await open_shop(world.test))
    assert await update(suite, world, before, None, display_name="y", labels={"y": "y"}) == {"display_name", "labels"}


async def test_an_empty_mask_is_none(suite: Suite, world: World) -> None:
    before = await full_license(await open_shop(world.test))
    assert await update(suite, world, before, [], display_name="y") == {"display_name"}


async def test_a_star_replaces_all(suite: Suite, world: World) -> None:
    before = await full_license(await open_shop(world.test))
    assert await update(suite, world, before, ["*"]) == FIELDS
    after = await world.test.licenses.get(before.license_id)
    assert (after.external_id, after.display_name, dict(after.labels)) == ("", "", {})
    assert not MessageToDict(after.metadata)
    assert not after.HasField("start_time")
    assert not after.HasField("expire_time")


async def test_a_masked_time_that_is_absent_is_cleared(suite: Suite, world: World) -> None:
    before = await full_license(await open_shop(world.test))
    assert await update(suite, world, before, ["expire_time"]) == {"expire_time"}
    assert not (await world.test.licenses.get(before.license_id)).HasField("expire_time")


async def test_an_expiry_in_the_past_expires_the_license_at_once(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue()
    request = UpdateLicenseRequest(license_id=made.license.license_id, expire_time=at(ago(seconds=1)))
    await send(suite, request, world.test_key)
    assert (await world.test.validate(key=made.key)).code == "EXPIRED"
    await world.test.licenses.update(made.license.license_id, expire_time=ahead(days=1))
    assert (await world.test.validate(key=made.key)).valid


@pytest.mark.parametrize(
    ("mask", "fields", "violations"),
    [
        ([], {}, [("update_mask", "REQUIRED")]),
        (None, {}, [("update_mask", "REQUIRED")]),
        (["nope"], {}, [("update_mask", "FIELD_UNKNOWN")]),
        (["status"], {}, [("update_mask", "FIELD_UNKNOWN")]),
        (["display_name", "key"], {"display_name": "y"}, [("update_mask", "FIELD_UNKNOWN")]),
        (["metadata.x"], {}, [("update_mask", "FIELD_UNKNOWN")]),
        (["display_name"], {"display_name": "y" * 256}, [("display_name", "LENGTH_OUT_OF_RANGE")]),
        (["expire_time"], {"expire_time": at(ago(days=2))}, [("expire_time", "BEFORE_START")]),
    ],
)
async def test_what_a_mask_cannot_say(
    suite: Suite, world: World, mask: list[str] | None, fields: dict[str, Any], violations: list[tuple[str, str]]
) -> None:
    before = await full_license(await open_shop(world.test))
    request = UpdateLicenseRequest(license_id=before.license_id, **fields)
    if mask is not None:
        request.update_mask.CopyFrom(FieldMask(paths=mask))
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", violations)


async def test_anothers_external_id_cannot_be_taken(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    await shop.issue(external_id="mine")
    other = (await shop.issue()).license
    async with unchanged(suite, world):
        error = await refused(
            suite, UpdateLicenseRequest(license_id=other.license_id, external_id="mine"), world.test_key
        )
    assert (error.reason, dict(error.info.metadata)) == ("EXTERNAL_ID_TAKEN", {"field": "external_id"})
