"""Lists: every item exactly once, whatever happens meanwhile; filters; and page tokens that fit one list only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from lictor.account.v1.account_service_pb2 import ListAccountsRequest, ListApiKeysRequest
from lictor.license.v1.catalog_service_pb2 import ListPoliciesRequest, ListProductsRequest, ListTiersRequest
from lictor.license.v1.license_service_pb2 import LicenseImport, LicenseStatus, ListLicensesRequest

from tests.helpers.builders import Shop, key_with, open_shop, refused, send, unchanged
from tests.helpers.suite import Suite, World

Make = Callable[[World, Shop, int], Awaitable[str]]


async def make_license(_: World, shop: Shop, __: int) -> str:
    return (await shop.issue()).license.license_id


async def make_product(world: World, _: Shop, number: int) -> str:
    return (await world.test.products.create(code=f"P{number}", display_name="P")).product.product_id


async def make_policy(world: World, shop: Shop, number: int) -> str:
    made = await world.test.policies.create(
        product_id=shop.product.product_id, display_name=f"P{number}", max_machines=1
    )
    return made.policy.policy_id


async def make_tier(world: World, shop: Shop, number: int) -> str:
    made = await world.test.tiers.create(product_id=shop.product.product_id, slug=f"t{number}", display_name="T")
    return made.tier.tier_id


async def make_key(world: World, _: Shop, __: int) -> str:
    return (await world.test.api_keys.create(scopes=["keys:read"])).api_key.api_key_id


LISTS: dict[str, tuple[type[Message], str, str, Make]] = {
    "licenses": (ListLicensesRequest, "licenses", "license_id", make_license),
    "products": (ListProductsRequest, "products", "product_id", make_product),
    "policies": (ListPoliciesRequest, "policies", "policy_id", make_policy),
    "tiers": (ListTiersRequest, "tiers", "tier_id", make_tier),
    "api keys": (ListApiKeysRequest, "api_keys", "api_key_id", make_key),
}


@pytest.mark.parametrize("name", LISTS)
async def test_all_items_come_exactly_once_while_others_are_added(suite: Suite, world: World, name: str) -> None:
    kind, items, id_field, make = LISTS[name]
    shop = await open_shop(world.test)
    there = {await make(world, shop, number) for number in range(7)}
    seen: list[str] = []
    token, number = "", 100
    while True:
        answer = await send(suite, kind(page_size=2, page_token=token), world.test_key)
        seen += [getattr(item, id_field) for item in getattr(answer, items)]
        token = answer.next_page_token
        if not token:
            break
        if number < 104:
            there.add(await make(world, shop, number))
            number += 1
    assert len(seen) == len(set(seen))
    assert there <= set(seen)
    assert seen == sorted(seen), "oldest first"


@pytest.mark.parametrize("name", LISTS)
async def test_the_sizes_of_a_page(suite: Suite, world: World, name: str) -> None:
    kind, items, _, make = LISTS[name]
    shop = await open_shop(world.test)
    for number in range(3):
        await make(world, shop, number)
    whole = await send(suite, kind(), world.test_key)
    count = len(getattr(whole, items))
    for size in (0, 50, 1000, 1001, 2**31 - 1):
        assert await send(suite, kind(page_size=size), world.test_key) == whole
    assert len(getattr(await send(suite, kind(page_size=1), world.test_key), items)) == 1
    exactly = await send(suite, kind(page_size=count), world.test_key)
    assert (len(getattr(exactly, items)), exactly.next_page_token) == (count, ""), "a full last page is the last"
    error = await refused(suite, kind(page_size=-1), world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("page_size", "OUT_OF_RANGE")])


async def test_a_page_holds_fifty_by_default_and_a_thousand_at_most(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue()
    async with suite.admin() as conn:
        await conn.execute(
            "INSERT INTO license.license SELECT (jsonb_populate_record(l, jsonb_build_object('license_id', "
            "'lic_' || lpad(n::text, 32, '0')))).* FROM license.license AS l, generate_series(1, 1001) AS n "
            "WHERE license_id = $1",
            made.license.license_id,
        )
    for size, expected in ((0, 50), (51, 51), (1000, 1000), (1001, 1000), (2000, 1000)):
        page = await send(suite, ListLicensesRequest(page_size=size), world.test_key)
        assert (len(page.licenses), bool(page.next_page_token)) == (expected, True)
    rest = await send(suite, ListLicensesRequest(page_size=1000, page_token=page.next_page_token), world.test_key)
    assert (len(rest.licenses), rest.next_page_token) == (2, "")


async def test_accounts_are_listed_page_by_page(suite: Suite) -> None:
    made: list[str] = []
    for _ in range(3):
        async with suite.world() as one:
            made.append(one.account_id)
    seen: list[str] = []
    token = ""
    while True:
        page = await send(suite, ListAccountsRequest(page_size=2, page_token=token), suite.operator_key)
        seen += [account.account_id for account in page.accounts]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(set(seen))
    assert set(made) <= set(seen)


async def listed(world: World, **filters: Any) -> set[str]:
    return {found.license_id async for found in world.test.licenses.list(page_size=2, **filters)}


async def test_licenses_by_product_policy_and_customer(world: World) -> None:
    one, two = await open_shop(world.test, code="ONE"), await open_shop(world.test, code="TWO")
    second = await world.test.policies.create(
        product_id=one.product.product_id, display_name="second", template="desktop_app"
    )
    a = (await one.issue(customer_email="Ada@example.com")).license
    b = (await one.issue(subject_ref="ada")).license
    c = (await two.issue(customer_email="ada@example.com")).license
    d = (await world.test.licenses.create(policy_id=second.policy.policy_id)).license
    ids = [found.license_id for found in (a, b, c, d)]
    for filters, expected in (
        ({}, ids),
        ({"product_id": one.product.product_id}, [ids[0], ids[1], ids[3]]),
        ({"product_id": two.product.product_id}, [ids[2]]),
        ({"policy_id": one.policy.policy_id}, [ids[0], ids[1]]),
        ({"policy_id": second.policy.policy_id}, [ids[3]]),
        ({"customer_id": a.customer_id}, [ids[0], ids[2]]),
        ({"customer_email": "ADA@Example.COM"}, [ids[0], ids[2]]),
        ({"customer_email": "ada@example.com", "product_id": two.product.product_id}, [ids[2]]),
        ({"customer_id": b.customer_id, "policy_id": one.policy.policy_id, "status": "active"}, [ids[1]]),
        ({"customer_id": b.customer_id, "policy_id": second.policy.policy_id}, []),
        ({"customer_email": "nobody@example.com"}, []),
        ({"product_id": "prod_nope"}, []),
    ):
        assert await listed(world, **filters) == set(expected), filters


@pytest.mark.parametrize("status", ["active", "suspended", "expired", "revoked", "banned"])
async def test_licenses_by_status_as_it_is_now(world: World, status: str) -> None:
    shop = await open_shop(world.test)
    made = {
        kind: {(await shop.issue_in(kind)).license.license_id for _ in range(2)}
        for kind in ("active", "suspended", "expired", "revoked", "banned")
    }
    assert await listed(world, status=status) == made[status]


async def test_a_list_shows_its_own_account_and_mode_only(suite: Suite, world: World) -> None:
    shop, live = await open_shop(world.test), await open_shop(world.live)
    mine = (await shop.issue()).license
    await live.issue()
    async with suite.world() as other:
        await (await open_shop(other.test)).issue()
        assert await listed(world) == {mine.license_id}
        foreign = {found.license_id async for found in other.test.licenses.list(policy_id=shop.policy.policy_id)}
        assert foreign == set()


async def test_an_unknown_status_is_refused(suite: Suite, world: World) -> None:
    unknown = ListLicensesRequest.FromString(b"\x38\x09")  # status 9, as a newer client might send it
    error = await refused(suite, unknown, world.test_key)
    assert error.violations == [("status", "ENUM_UNKNOWN")]


async def test_a_page_token_belongs_to_one_list_with_its_filters(suite: Suite, world: World) -> None:
    shop, live = await open_shop(world.test), await open_shop(world.live)
    for one in (shop, live):
        for _ in range(3):
            await one.issue()
    pages = {
        key: (await send(suite, ListLicensesRequest(page_size=1), key)).next_page_token
        for key in (world.test_key, world.live_key)
    }
    mine = pages[world.test_key]
    async with suite.world() as other, unchanged(suite, world, other):
        for request, key in (
            (ListLicensesRequest(page_token=mine, status=LicenseStatus.active), world.test_key),
            (ListLicensesRequest(page_token=mine, policy_id=shop.policy.policy_id), world.test_key),
            (ListProductsRequest(page_token=mine), world.test_key),
            (ListApiKeysRequest(page_token=mine), world.test_key),
            (ListLicensesRequest(page_token=mine), world.live_key),
            (ListLicensesRequest(page_token=mine), other.test_key),
            (ListLicensesRequest(page_token=mine[:-1]), world.test_key),
            (ListLicensesRequest(page_token=mine[:9] + ("A" if mine[9] != "A" else "B") + mine[10:]), world.test_key),
            (ListLicensesRequest(page_token="x"), world.test_key),
            (ListLicensesRequest(page_token="ключ"), world.test_key),
        ):
            error = await refused(suite, request, key)
            assert (error.reason, error.violations) == ("PAGE_TOKEN_INVALID", [])
        error = await refused(suite, ListLicensesRequest(page_token="x" * 513), world.test_key)
        assert error.violations == [("page_token", "LENGTH_OUT_OF_RANGE")]
    again = await send(suite, ListLicensesRequest(page_size=1000, page_token=mine), world.test_key)
    assert len(again.licenses) == 2, "another page size is no other list"


async def test_narrow_keys_list_too(suite: Suite, world: World) -> None:
    await (await open_shop(world.test)).issue()
    key = await key_with(world.test, "licenses:read")
    assert len((await send(suite, ListLicensesRequest(), key)).licenses) == 1


async def test_a_page_of_large_items_ends_before_a_client_would_refuse_it(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    large = Struct()
    large.update({"note": "x" * 16_000})
    made: list[str] = []
    for _ in range(5):
        items = [LicenseImport(policy_id=shop.policy.policy_id, metadata=large) for _ in range(60)]
        made += [done.license_id for done in (await world.test.licenses.import_batch(items)).licenses]
    seen: list[str] = []
    token, pages = "", 0
    while True:
        page = await send(suite, ListLicensesRequest(page_size=1000, page_token=token), world.test_key)
        assert page.ByteSize() <= 3 * 1024 * 1024
        seen += [found.license_id for found in page.licenses]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert (seen, pages) == (sorted(made), 2)
