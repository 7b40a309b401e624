"""WatchLicenses: a snapshot, then every change, by a call or by time; within the account, the mode and the filters."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from lictor.common.v1.common_pb2 import Freshness, View

from tests.helpers.builders import Shop, key_with, open_shop, refused_by, uuid
from tests.helpers.suite import Suite, World
from tests.helpers.watching import Kind, Watcher, watching


async def ids_of(shop: Shop, count: int) -> list[str]:
    return [(await shop.issue()).license.license_id for _ in range(count)]


async def settled(watcher: Watcher) -> None:
    """All that happened until now was told: two bookmarks, the first of which may have been on its way."""
    for _ in range(2):
        await watcher.until_kind(Kind.BOOKMARK)


async def test_a_snapshot_is_in_the_order_of_ids_and_says_what_validations_say(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    ids = await ids_of(shop, 3)
    await world.test.licenses.suspend(ids[1])
    async with watching(suite, world.test_key) as watcher:
        assert watcher.told == [
            ("SNAPSHOT_BEGUN", ""),
            *(("SNAPSHOT", license_id) for license_id in sorted(ids)),
            ("SNAPSHOT_COMPLETE", ""),
        ]
        assert watcher.token
        for license_id in ids:
            asked = await world.test.validate(license_id=license_id)
            held = watcher.held[license_id]
            assert (held.valid, watcher.code(license_id)) == (asked.valid, asked.code)
            assert held.expire_time.ToDatetime(UTC) == asked.expire_time
            assert held.product_id == shop.product.product_id
            assert held.policy_id == shop.policy.policy_id
            assert not held.HasField("license")
            assert held.decision.freshness == Freshness.RECORD
            assert held.decision.decision_id.startswith("dec_")


async def test_an_empty_account_has_an_empty_snapshot(suite: Suite, world: World) -> None:
    async with watching(suite, world.test_key) as watcher:
        assert watcher.told == [("SNAPSHOT_BEGUN", ""), ("SNAPSHOT_COMPLETE", "")]


async def test_every_way_in_which_a_license_changes_is_told(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, require_check_in=False)
    client, licenses = world.test, world.test.licenses
    [license_id] = await ids_of(shop, 1)
    async with watching(suite, world.test_key, view=View.BASIC) as watcher:
        await licenses.suspend(license_id)
        await watcher.until_code(license_id, "SUSPENDED")
        await licenses.reinstate(license_id)
        await watcher.until_code(license_id, "VALID")
        await licenses.update(license_id, display_name="Renamed")
        await watcher.until(lambda: watcher.held[license_id].license.display_name == "Renamed")
        rotated = await licenses.rotate_key(license_id)
        await watcher.until(lambda: watcher.held[license_id].license.key_hint == rotated.license.key_hint)
        await client.policies.update(shop.policy.policy_id, require_product_scope=True)
        await watcher.until_code(license_id, "PRODUCT_SCOPE_REQUIRED")
        await client.policies.update(shop.policy.policy_id, require_product_scope=False)
        await watcher.until_code(license_id, "VALID")
        tier = (await client.tiers.create(product_id=shop.product.product_id, slug="pro", display_name="Pro")).tier
        await licenses.change_tier(license_id, tier_id=tier.tier_id)
        await watcher.until(lambda: watcher.held[license_id].tier == "pro")
        await client.tiers.update(tier.tier_id, slug="plus")
        await watcher.until(lambda: watcher.held[license_id].tier == "plus")
        made = (await shop.issue(customer_email=f"{uuid()}@example.com")).license
        await watcher.until_code(made.license_id, "VALID")
        await client.customers.ban(made.customer_id)
        await watcher.until_code(made.license_id, "BANNED")
        await client.customers.unban(made.customer_id)
        await watcher.until_code(made.license_id, "VALID")
        await licenses.delete(made.license_id)
        await watcher.until(lambda: made.license_id not in watcher.held)
        assert ("DELETED", made.license_id) in watcher.told
        await licenses.revoke(license_id)
        await watcher.until_code(license_id, "REVOKED")


async def test_nothing_is_required_of_a_machine_and_machines_are_counted(suite: Suite, world: World) -> None:
    shop = await open_shop(
        world.test, require_fingerprint=True, require_machine_scope=True, require_components_scope=True
    )
    [license_id] = await ids_of(shop, 1)
    assert (await world.test.validate(license_id=license_id)).code == "MACHINE_SCOPE_REQUIRED"
    async with watching(suite, world.test_key) as watcher:
        assert (watcher.code(license_id), watcher.held[license_id].seats.machines) == ("VALID", 0)
        made = await world.test.activate(license_id=license_id, fingerprint="fingerprint-1")
        await watcher.until(lambda: watcher.held[license_id].seats.machines == 1)
        await world.test.machines.deactivate(made.machine.machine_id)
        await watcher.until(lambda: watcher.held[license_id].seats.machines == 0)
        assert watcher.code(license_id) == "VALID"


@pytest.mark.parametrize("seconds", [2])
async def test_time_alone_is_told_when_it_is_due(suite: Suite, world: World, seconds: int) -> None:
    shop = await open_shop(world.test)
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    license_id = (await shop.issue(expire_time=ends)).license.license_id
    async with watching(suite, world.test_key) as watcher:
        assert watcher.code(license_id) == "VALID"
        await watcher.until_code(license_id, "EXPIRED")
        told_at = datetime.now(UTC)
        assert ends <= told_at <= ends + timedelta(seconds=1)
        assert [told for told in watcher.told if told == ("DELTA", license_id)] == [("DELTA", license_id)]


async def test_filters_keep_everything_else_out(suite: Suite, world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    second = (
        await world.test.policies.create(
            product_id=shop.product.product_id,
            display_name="Second",
            template="desktop_app",
            duration=timedelta(days=9),
        )
    ).policy
    [mine] = await ids_of(shop, 1)
    [also] = await ids_of(Shop(world.test, shop.product, second), 1)
    [foreign] = await ids_of(other, 1)
    nowhere = "lic_00000000000000000000000000000000"
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"product_id": shop.product.product_id}, {mine, also}),
        ({"policy_id": second.policy_id}, {also}),
        ({"product_id": other.product.product_id, "policy_id": second.policy_id}, set()),
        ({"license_ids": [foreign, mine, nowhere, mine]}, {foreign, mine}),
        ({"license_ids": [foreign, mine], "product_id": other.product.product_id}, {foreign}),
        ({"product_id": "prod_0"}, set()),
    ]
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(watching(suite, world.test_key, **request)) for request, _ in cases]
        for license_id in (mine, also, foreign):
            await world.test.licenses.update(license_id, display_name=uuid())
        await asyncio.gather(*(settled(watcher) for watcher in watchers))
    for watcher, (request, expected) in zip(watchers, cases, strict=True):
        assert set(watcher.held) == expected, request
        changes = {told for told in watcher.told if told[0] in {"DELTA", "DELETED"}}
        assert changes == {("DELTA", license_id) for license_id in expected}, request


async def test_a_license_that_leaves_the_filter_is_told_as_gone_and_one_that_comes_is_told(
    suite: Suite, world: World
) -> None:
    shop = await open_shop(world.test)
    second = (
        await world.test.policies.create(
            product_id=shop.product.product_id,
            display_name="Second",
            template="desktop_app",
            duration=timedelta(days=9),
        )
    ).policy
    [license_id] = await ids_of(shop, 1)
    async with (
        watching(suite, world.test_key, policy_id=shop.policy.policy_id) as left,
        watching(suite, world.test_key, policy_id=second.policy_id) as entered,
    ):
        assert (set(left.held), set(entered.held)) == ({license_id}, set())
        await world.test.licenses.change_policy(license_id, policy_id=second.policy_id)
        await left.until(lambda: ("DELETED", license_id) in left.told)
        await entered.until_code(license_id, "VALID")


async def test_other_accounts_and_modes_are_never_told_of(suite: Suite, world: World) -> None:
    async with suite.world() as stranger:
        shop, live = await open_shop(world.test), await open_shop(world.live)
        [license_id] = await ids_of(shop, 1)
        [live_id] = await ids_of(live, 1)
        async with (
            watching(suite, stranger.test_key) as foreign,
            watching(suite, stranger.test_key, license_ids=[license_id]) as named,
            watching(suite, world.live_key) as other_mode,
        ):
            for changed, client in ((license_id, world.test), (live_id, world.live)):
                await client.licenses.suspend(changed)
                await client.licenses.delete(changed)
            await asyncio.gather(*(settled(watcher) for watcher in (foreign, named, other_mode)))
            for watcher in (foreign, named):
                assert {kind for kind, _ in watcher.told} == {"SNAPSHOT_BEGUN", "SNAPSHOT_COMPLETE", "BOOKMARK"}
            assert {told_of for _, told_of in other_mode.told} == {"", live_id}


async def test_a_policy_change_reaches_its_500_licenses_and_a_revocation_is_not_kept_waiting(
    suite: Suite, world: World
) -> None:
    shop = await open_shop(world.test)
    ids: set[str] = set()
    for _ in range(5):
        made = await asyncio.gather(*(shop.issue() for _ in range(100)))
        ids |= {one.license.license_id for one in made}
    async with watching(suite, world.test_key) as watcher:
        assert set(watcher.held) == ids
        await world.test.policies.update(shop.policy.policy_id, require_policy_scope=True)
        revoked = max(ids)
        await world.test.licenses.revoke(revoked)
        await watcher.until(lambda: {watcher.code(one) for one in ids} == {"POLICY_SCOPE_REQUIRED", "REVOKED"})
        await watcher.until_code(revoked, "REVOKED")


async def test_a_bookmark_comes_at_least_every_ten_seconds(suite: Suite, world: World) -> None:
    async with watching(suite, world.test_key) as watcher:
        for _ in range(2):
            begun = asyncio.get_running_loop().time()
            message = await watcher.next()
            assert message.kind == Kind.BOOKMARK
            assert message.resume_token
            assert asyncio.get_running_loop().time() - begun < 10


BAD: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"product_id": "p" * 65}, [("product_id", "LENGTH_OUT_OF_RANGE")]),
    ({"policy_id": "p" * 65}, [("policy_id", "LENGTH_OUT_OF_RANGE")]),
    ({"license_ids": ["lic_1"] * 1001}, [("license_ids", "TOO_MANY")]),
    (
        {"license_ids": ["", "l" * 65]},
        [("license_ids[0]", "LENGTH_OUT_OF_RANGE"), ("license_ids[1]", "LENGTH_OUT_OF_RANGE")],
    ),
    ({"view": View.FULL}, [("view", "CONTRADICTION")]),
    ({"view": 99}, [("view", "ENUM_UNKNOWN")]),
    ({"resume_token": "x" * 2049}, [("resume_token", "LENGTH_OUT_OF_RANGE")]),
    (
        {"product_id": "p" * 65, "view": View.FULL, "license_ids": [""]},
        [("product_id", "LENGTH_OUT_OF_RANGE"), ("license_ids[0]", "LENGTH_OUT_OF_RANGE"), ("view", "CONTRADICTION")],
    ),
    ({"product_id": "a\0"}, [("product_id", "NUL_IN_STRING")]),
]


@pytest.mark.parametrize(("request_", "violations"), BAD)
async def test_bad_input_names_every_field(
    suite: Suite, world: World, request_: dict[str, Any], violations: list[tuple[str, str]]
) -> None:
    async with watching(suite, world.test_key, complete=False, **request_) as watcher:
        found = await refused_by(watcher.refused())
    assert found.reason == "FIELD_INVALID"
    assert found.violations == violations


async def test_who_may_not_read_licenses_may_not_watch_them(suite: Suite, world: World) -> None:
    keys = {
        await key_with(world.test, "licenses:validate"): "CALLER_NOT_ALLOWED",
        (
            await world.test.api_keys.create(kind="PUBLISHABLE", scopes=["licenses:validate"])
        ).secret: "CALLER_NOT_ALLOWED",
        suite.operator_key: "CALLER_NOT_ALLOWED",
        "sk_test_nope": "CREDENTIALS_INVALID",
    }
    for key, reason in keys.items():
        async with watching(suite, key, complete=False) as watcher:
            assert (await refused_by(watcher.refused())).reason == reason
