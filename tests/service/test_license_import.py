"""ImportLicenses: licenses come as they were, all of a batch or none, and once however often they are sent."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.struct_pb2 import Struct
from lictor.license.v1 import license_service_pb2 as pb

from services.license.fields import MAX_IMPORT_ITEMS
from tests.helpers.builders import (
    Shop,
    ago,
    ahead,
    assert_same,
    at,
    events,
    key_with,
    open_shop,
    refused,
    send,
    unchanged,
    uuid,
)
from tests.helpers.suite import Suite, World

States = pb.LicenseStatus.Status


def item(shop: Shop, **more: Any) -> pb.LicenseImport:
    if not more.keys() & {"policy_id", "policy_external_id"}:
        more["policy_id"] = shop.policy.policy_id
    return pb.LicenseImport(**more)


def batch(*items: pb.LicenseImport, **more: Any) -> pb.ImportLicensesRequest:
    return pb.ImportLicensesRequest(request_id=uuid(), items=items, **more)


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


async def test_a_license_comes_as_it_was(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, overridable=["MAX_USES"])
    tier = (await world.test.tiers.create(product_id=shop.product.product_id, slug="pro", display_name="Pro")).tier
    created, key = ago(days=700), f"OLD-{uuid4().hex}"
    sent = item(
        shop, key=key, external_id="o-1", customer=pb.CustomerRef(email="Ada@Example.com", display_name="Ada"),
        tier="pro", display_name="Ada's", start_time=at(ago(days=690)), expire_time=at(ahead(days=3)),
        status=States.suspended, status_reason="unpaid", create_time=at(created), labels={"a": "b"},
        metadata=struct(n=1, deep={"x": [1, "y", None]}), uses=7, overrides=pb.LicenseOverrides(max_uses=9),
    )  # fmt: skip
    (done,) = (await send(suite, batch(sent), world.test_key)).licenses
    assert (done.key, done.already_there) == ("", False)
    found = await world.test.licenses.get(done.license_id)
    customer = await world.test.customers.get(email="ada@example.com")
    assert customer.display_name == "Ada"
    assert (found.external_id, found.display_name, found.tier_id, found.customer_id, found.product_id) == (
        "o-1", "Ada's", tier.tier_id, customer.customer_id, shop.product.product_id,
    )  # fmt: skip
    assert (found.status, found.status_reason, found.key_hint) == (States.suspended, "unpaid", key[-4:])
    assert (found.start_time, found.expire_time, found.create_time) == (sent.start_time, sent.expire_time, at(created))
    assert (dict(found.labels), found.metadata, found.revision) == ({"a": "b"}, sent.metadata, 1)
    assert (found.uses, found.overrides.max_uses) == (7, 9)
    assert (await world.test.validate(key=key.lower())).code == "SUSPENDED"
    assert (await world.test.licenses.reveal_key(done.license_id)).key == key
    written = await events(suite, done.license_id)
    assert [(e["type"], e["subject_seq"], e["in_outbox"]) for e in written[:1]] == [("license.created", 1, True)]
    assert key not in str(dict(written[0]))
    assert [e["type"] for e in await events(suite, customer.customer_id)] == ["customer.created"]


@pytest.mark.parametrize("status", ["active", "suspended", "revoked", "banned"])
async def test_every_state_that_is_stored_can_come(world: World, status: str) -> None:
    shop = await open_shop(world.test)
    request = item(shop, status=States.Value(status), perpetual=True)
    (done,) = (await world.test.licenses.import_batch([request])).licenses
    found = await world.test.licenses.get(done.license_id)
    assert (States.Name(found.status), found.HasField("expire_time")) == (status, False)
    code = (await world.test.validate(key=done.key)).code
    assert code == {"active": "VALID"}.get(status, status.upper())


async def test_an_expired_one_comes_with_its_end(world: World) -> None:
    shop = await open_shop(world.test)
    request = item(shop, expire_time=at(ago(days=1)), create_time=at(ago(days=9)))
    (done,) = (await world.test.licenses.import_batch([request])).licenses
    assert (await world.test.validate(key=done.key)).code == "EXPIRED"


async def test_without_an_end_the_policy_counts_from_the_creation(world: World) -> None:
    shop = await open_shop(world.test)
    (done,) = (await world.test.licenses.import_batch([item(shop, create_time=at(ago(days=10)))])).licenses
    found = await world.test.licenses.get(done.license_id)
    assert found.expire_time.ToDatetime(UTC) - found.create_time.ToDatetime(UTC) == shop.policy.duration.ToTimedelta()


async def test_all_that_is_bad_is_named_and_nothing_is_stored(suite: Suite, world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    foreign = (await world.test.tiers.create(product_id=other.product.product_id, slug="x", display_name="x")).tier
    there = await shop.issue(external_id="there", customer_email="banned@example.com")
    await world.test.customers.ban(there.license.customer_id)
    good = item(shop, external_id="good", customer=pb.CustomerRef(email="new@example.com"))
    items = [
        good,
        item(shop, external_id="there"),
        item(shop, key=there.key.lower()),
        item(shop, policy_id="pol_none"),
        item(shop, policy_external_id="none", tier="none"),
        item(shop, tier="none"),
        item(shop, tier_id=foreign.tier_id),
        item(shop, customer=pb.CustomerRef(customer_id="cus_none")),
        item(shop, customer=pb.CustomerRef(email="BANNED@example.com")),
        item(shop, external_id="good"),
        item(shop, key="twice-twice"),
        item(shop, key="TWlCE-twice"),
        item(shop, create_time=at(ahead(days=1))),
        item(shop, start_time=at(ahead(days=2)), expire_time=at(ahead(days=1))),
        item(shop, status=States.expired, tier="UP", tier_id="t"),
        item(shop, perpetual=True, expire_time=at(ahead(days=1)), status_reason="x"),
        pb.LicenseImport(key="short"),
        item(shop, overrides=pb.LicenseOverrides(max_uses=9)),
        item(shop, uses=-1),
    ]
    expected = {
        ("items[1].external_id", "EXTERNAL_ID_TAKEN"), ("items[2].key", "KEY_TAKEN"),
        ("items[3].policy_id", "POLICY_NOT_FOUND"), ("items[4].policy_external_id", "POLICY_NOT_FOUND"),
        ("items[5].tier", "TIER_NOT_FOUND"), ("items[6].tier_id", "OTHER_PRODUCT"),
        ("items[7].customer.customer_id", "CUSTOMER_NOT_FOUND"), ("items[8].customer", "CUSTOMER_BANNED"),
        ("items[9].external_id", "DUPLICATE"), ("items[11].key", "DUPLICATE"), ("items[12].create_time", "MUST_BE_PAST"),
        ("items[13].expire_time", "BEFORE_START"), ("items[14].status", "CONTRADICTION"),
        ("items[14].tier", "SLUG_INVALID"), ("items[14].tier", "CONTRADICTION"), ("items[15].perpetual", "CONTRADICTION"),
        ("items[15].status_reason", "CONTRADICTION"), ("items[16].policy_id", "EXACTLY_ONE"),
        ("items[16].key", "LICENSE_KEY_INVALID"), ("items[17].overrides", "POLICY_INCOMPATIBLE"),
        ("items[18].uses", "OUT_OF_RANGE"),
    }  # fmt: skip
    async with unchanged(suite, world):
        refusal = await refused(suite, batch(*items), world.test_key)
        foreseen = await send(suite, batch(*items, validate_only=True), world.test_key)
    assert (refusal.reason, refusal.info.metadata["violations"]) == ("FIELD_INVALID", str(len(expected)))
    assert set(refusal.violations) == expected
    assert {(bad.field, bad.reason) for bad in foreseen.violations} == expected
    assert (foreseen.violation_count, len(foreseen.licenses)) == (len(expected), 0)


async def test_a_dry_run_of_what_is_good_stores_nothing(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    there = await world.test.licenses.import_batch([item(shop, external_id="there")])
    items = [item(shop, customer=pb.CustomerRef(subject_ref="new")), item(shop, external_id="there")]
    request = batch(*items, validate_only=True)
    async with unchanged(suite, world):
        foreseen = await send(suite, request, world.test_key)
    assert foreseen == pb.ImportLicensesResponse(
        licenses=[
            pb.ImportedLicense(),
            pb.ImportedLicense(license_id=there.licenses[0].license_id, already_there=True),
        ]
    )
    request.validate_only = False
    assert [bool(done.key) for done in (await send(suite, request, world.test_key)).licenses] == [True, False]


async def test_an_item_with_an_external_id_comes_once(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    sent = item(
        shop, external_id="one", key=f"K-{uuid4().hex}", customer=pb.CustomerRef(email="a@example.com"),
        metadata=struct(n=1.5, m=2), labels={"k": "v"}, expire_time=at(ahead(days=1)),
    )  # fmt: skip
    (first,) = (await send(suite, batch(sent), world.test_key)).licenses
    await world.test.licenses.increment_uses(first.license_id)
    used = len(await events(suite, first.license_id))
    (again,) = (await send(suite, batch(sent), world.test_key)).licenses
    assert again == pb.ImportedLicense(license_id=first.license_id, already_there=True)
    assert len(await events(suite, first.license_id)) == used
    changes: tuple[dict[str, Any], ...] = (
        {"display_name": "x"},
        {"key": f"K-{uuid4().hex}"},
        {"status": States.suspended},
    )
    for change in changes:
        other = pb.LicenseImport()
        other.CopyFrom(sent)
        other.MergeFrom(pb.LicenseImport(**change))
        async with unchanged(suite, world):
            refusal = await refused(suite, batch(other), world.test_key)
        assert refusal.violations == [("items[0].external_id", "EXTERNAL_ID_TAKEN")], change
    await world.test.licenses.suspend(first.license_id)
    assert (await refused(suite, batch(sent), world.test_key)).violations == [
        ("items[0].external_id", "EXTERNAL_ID_TAKEN")
    ]


async def test_a_repeat_is_answered_with_the_same_keys_which_are_stored_sealed(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    request = batch(*(item(shop) for _ in range(3)))
    first = await send(suite, request, world.test_key)
    again = await send(suite, request, world.test_key)
    assert_same(again, first)
    assert len({done.key for done in first.licenses}) == 3
    async with suite.admin() as admin:
        stored = await admin.fetch(
            "SELECT result, sealed FROM record.request WHERE account_id = $1 AND method LIKE '%ImportLicenses'",
            world.account_id,
        )
    assert [row["sealed"] for row in stored] == [True]
    assert first.licenses[0].key.encode() not in stored[0]["result"]
    for done in first.licenses:
        assert (await world.test.validate(key=done.key)).license_id == done.license_id


async def test_keys_of_a_hash_only_product_are_hashed_alone(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, key_storage="HASH_ONLY")
    (done,) = (await world.test.licenses.import_batch([item(shop)])).licenses
    assert (await world.test.validate(key=done.key)).valid
    async with suite.admin() as admin:
        row = await admin.fetchrow("SELECT * FROM license.license_key WHERE license_id = $1", done.license_id)
    assert row is not None
    assert row["ciphertext"] is None


async def test_batches_that_share_new_customers_run_side_by_side(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    names = [f"c{number}@example.com" for number in range(40)]

    def items(order: list[str]) -> list[pb.LicenseImport]:
        return [item(shop, customer=pb.CustomerRef(email=name)) for name in order]

    done = await asyncio.gather(
        *(
            world.test.licenses.import_batch(items(order), timeout_s=30)
            for order in (names, names[::-1], names[20:] + names[:20], names)
        )
    )
    held: dict[str, set[str]] = {}
    for answer, order in zip(done, (names, names[::-1], names[20:] + names[:20], names), strict=True):
        for one, name in zip(answer.licenses, order, strict=True):
            held.setdefault(name, set()).add((await world.test.licenses.get(one.license_id)).customer_id)
    assert all(len(customers) == 1 for customers in held.values())
    for customers in held.values():
        assert [e["type"] for e in await events(suite, next(iter(customers)))] == ["customer.created"]


async def test_two_imports_of_the_same_at_once_make_it_once(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    sent = item(shop, external_id="raced")

    async def attempt() -> str:
        try:
            return (await send(suite, batch(sent), world.test_key)).licenses[0].license_id
        except Exception as error:  # noqa: BLE001 - whichever it is, the record is looked at
            return str(error)

    await asyncio.gather(*(attempt() for _ in range(6)))
    found = [one async for one in world.test.licenses.list()]
    assert [one.external_id for one in found] == ["raced"]
    assert len(await events(suite, found[0].license_id)) == 1


async def test_how_many_items_a_batch_has(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    assert (await refused(suite, batch(), world.test_key)).violations == [("items", "REQUIRED")]
    many = [item(shop) for _ in range(MAX_IMPORT_ITEMS + 1)]
    assert (await refused(suite, batch(*many), world.test_key)).violations == [("items", "TOO_MANY")]
    began = datetime.now(UTC)
    done = await send(suite, batch(*many[:-1]), world.test_key)
    assert len({one.license_id for one in done.licenses}) == MAX_IMPORT_ITEMS
    print(f"{MAX_IMPORT_ITEMS} licenses in {(datetime.now(UTC) - began).total_seconds():.2f} s")


async def test_a_batch_needs_a_request_id_and_the_scope_to_write(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    request = batch(item(shop))
    request.request_id = ""
    assert (await refused(suite, request, world.test_key)).violations == [("request_id", "REQUIRED")]
    reader = await key_with(world.test, "licenses:read", "licenses:reveal")
    assert (await refused(suite, batch(item(shop)), reader)).reason == "CALLER_NOT_ALLOWED"


async def test_nothing_of_another_world_is_found(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    async with suite.world() as other:
        for key in (world.live_key, other.test_key):
            refusal = await refused(suite, batch(item(shop)), key)
            assert refusal.violations == [("items[0].policy_id", "POLICY_NOT_FOUND")]
