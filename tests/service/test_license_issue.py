"""Issuing: the key, the period, the holder and the data of a license; and that a retry issues none."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from lictor import AlreadyExists, FailedPrecondition, InvalidArgument, LictorError, NotFound

from shared.crypto.private_files import generate_line
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import ago, ahead, assert_same, at, events, open_shop, rows, unchanged, uuid
from tests.helpers.suite import Suite, World, running_suite

KEY = re.compile(r"SHOP(-[0-9A-HJKMNP-TV-Z]{4}){4}")


async def test_a_generated_key_has_the_products_code_in_front(world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue()
    assert KEY.fullmatch(made.key)
    assert made.license.key_hint == made.key[-4:]
    assert (made.license.product_id, made.license.policy_id) == (shop.product.product_id, shop.policy.policy_id)


@pytest.mark.parametrize("key", ["x" * 8, "my.own/key#1", "~" * 255])
async def test_a_caller_may_bring_a_key(world: World, key: str) -> None:
    made = await (await open_shop(world.test)).issue(key=key)
    assert (made.key, made.license.key_hint) == (key, key[-4:])
    assert (await world.test.validate(key=key)).license_id == made.license.license_id


async def test_a_key_is_unique_in_every_spelling_but_each_mode_has_its_own(suite: Suite, world: World) -> None:
    test, live = await open_shop(world.test), await open_shop(world.live)
    await test.issue(key="BOIL-0123")
    await live.issue(key="BOIL-0123")
    async with unchanged(suite, world):
        for same in ("BOIL-0123", "boil-0123", "B01L-OI23", "b0iI-o123"):
            with pytest.raises(AlreadyExists) as caught:
                await test.issue(key=same)
            assert caught.value.reason == "KEY_TAKEN"
            assert same not in str(caught.value)


async def test_no_key_is_stored_nor_is_it_in_an_event(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue(request_id=uuid())
    stored = str(await rows(suite, world.account_id))
    assert made.key not in stored
    assert made.key.encode().hex() not in stored, "not even in a stored answer"


async def test_the_period_is_the_policys_from_now(world: World) -> None:
    made = (await (await open_shop(world.test, duration=timedelta(days=3))).issue()).license
    assert not made.HasField("start_time")
    assert made.expire_time.ToDatetime() - made.create_time.ToDatetime() == timedelta(days=3)


async def test_the_period_is_the_policys_from_the_start(world: World) -> None:
    start = ahead(days=40)
    made = (await (await open_shop(world.test, duration=timedelta(days=3))).issue(start_time=start)).license
    assert (made.start_time, made.expire_time) == (at(start), at(start + timedelta(days=3)))


async def test_the_callers_own_expiry_wins_and_a_policy_without_duration_gives_none(world: World) -> None:
    until = ahead(days=400)
    assert (await (await open_shop(world.test)).issue(expire_time=until)).license.expire_time == at(until)
    perpetual = await open_shop(world.test, code="EVER", duration=None)
    assert not (await perpetual.issue()).license.HasField("expire_time")


@pytest.mark.parametrize(
    "period",
    [
        {"expire_time": ago(seconds=1)},
        {"start_time": ahead(days=2), "expire_time": ahead(days=1)},
        {"start_time": ago(days=2), "expire_time": ago(days=2)},
    ],
)
async def test_a_license_cannot_end_before_it_starts(suite: Suite, world: World, period: dict[str, object]) -> None:
    shop = await open_shop(world.test)
    async with unchanged(suite, world):
        with pytest.raises(InvalidArgument) as caught:
            await shop.issue(**period)
    assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "BEFORE_START")]


async def test_a_customer_is_made_once_and_found_by_any_name(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    first = (await shop.issue(customer_email="Ada@Example.com", customer_name="Ada")).license.customer_id
    assert first.startswith("cus_")
    for named in ({"customer_email": "ada@EXAMPLE.com"}, {"customer_id": first}):
        assert (await shop.issue(**named)).license.customer_id == first
    by_ref = (await shop.issue(subject_ref="User-1")).license.customer_id
    assert by_ref != first
    assert (await shop.issue(subject_ref="User-1")).license.customer_id == by_ref
    assert (await shop.issue(subject_ref="user-1")).license.customer_id != by_ref, "a ref is the caller's, as it is"
    assert (await shop.issue()).license.customer_id == ""
    assert [event["type"] for event in await events(suite, first)] == ["customer.created"]


async def test_customers_of_the_two_modes_are_strangers(world: World) -> None:
    test, live = await open_shop(world.test), await open_shop(world.live)
    first = (await test.issue(customer_email="ada@example.com")).license.customer_id
    assert (await live.issue(customer_email="ada@example.com")).license.customer_id != first
    with pytest.raises(NotFound) as caught:
        await live.issue(customer_id=first)
    assert caught.value.reason == "CUSTOMER_NOT_FOUND"


async def test_a_license_keeps_what_the_caller_says_of_it(world: World) -> None:
    metadata = {"seat": 7, "half": 0.5, "nested": {"list": [1, None, "x", {"deep": True}]}, "": "empty key"}
    made = await (await open_shop(world.test)).issue(
        external_id="order/1", display_name="Zoë's", labels={"tier": "gold"}, metadata=metadata
    )
    found = await world.test.licenses.get(external_id="order/1")
    assert found == await world.test.licenses.get(made.license.license_id) == made.license
    assert (found.external_id, found.display_name, dict(found.labels)) == ("order/1", "Zoë's", {"tier": "gold"})
    assert MessageToDict(found.metadata) == metadata
    assert (found.revision, found.create_time) == (1, found.update_time)


async def test_an_external_id_is_unique_in_its_mode(suite: Suite, world: World) -> None:
    test, live = await open_shop(world.test), await open_shop(world.live)
    await test.issue(external_id="order/1")
    await live.issue(external_id="order/1")
    async with unchanged(suite, world):
        with pytest.raises(AlreadyExists) as caught:
            await test.issue(external_id="order/1")
    assert (caught.value.reason, caught.value.metadata) == ("EXTERNAL_ID_TAKEN", {"field": "external_id"})


async def test_the_product_of_a_request_is_a_check(suite: Suite, world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    made = await shop.issue(product_id=shop.product.product_id)
    assert made.license.product_id == shop.product.product_id
    async with unchanged(suite, world):
        with pytest.raises(FailedPrecondition) as wrong:
            await shop.issue(product_id=other.product.product_id)
        with pytest.raises(NotFound) as unknown:
            await shop.issue(product_id="prod_nope")
    assert (wrong.value.reason, wrong.value.metadata) == (
        "POLICY_INCOMPATIBLE",
        {"policyId": shop.policy.policy_id},
    )
    assert (unknown.value.reason, unknown.value.metadata) == ("PRODUCT_NOT_FOUND", {"id": "prod_nope"})


async def test_a_refused_issue_makes_no_customer(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    await shop.issue(key="taken-key")
    async with unchanged(suite, world):
        with pytest.raises(AlreadyExists):
            await shop.issue(key="taken-key", customer_email="new@example.com")


async def test_a_retry_gets_the_same_key_and_issues_nothing(suite: Suite, world: World) -> None:
    shop, request_id = await open_shop(world.test), uuid()
    first = await shop.issue(request_id=request_id, customer_email="ada@example.com")
    async with unchanged(suite, world):
        for spelling in (request_id, request_id.upper(), request_id.replace("-", "")):
            assert_same(await shop.issue(request_id=spelling, customer_email="ada@example.com"), first)


async def test_a_refused_request_id_can_be_used_again(world: World) -> None:
    shop, request_id = await open_shop(world.test), uuid()
    with pytest.raises(LictorError):
        await shop.issue(request_id=request_id, customer_id="cus_nope")
    assert (await shop.issue(request_id=request_id)).key


async def test_a_request_id_belongs_to_one_method_one_account_and_one_mode(suite: Suite, world: World) -> None:
    request_id = uuid()
    async with suite.world() as other:
        made = [
            await (await open_shop(client)).issue(request_id=request_id)
            for client in (world.test, world.live, other.test)
        ]
    assert len({answer.license.license_id for answer in made}) == 3
    suspended = await world.test.licenses.suspend(made[0].license.license_id, request_id=request_id)
    assert suspended.license.license_id == made[0].license.license_id


async def test_keys_from_before_the_root_secret_was_rotated_are_still_known_and_still_taken(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with running_suite(postgres, tmp_path) as before, before.world() as world:
        made = await (await open_shop(world.test)).issue()
    with (tmp_path / "root-secret").open("a") as secret_file:
        secret_file.write(generate_line(version=2))
    async with running_suite(postgres, tmp_path) as after, after.client(world.test_key) as client:
        assert (await client.validate(key=made.key)).license_id == made.license.license_id
        async with unchanged(after, world):
            with pytest.raises(AlreadyExists) as caught:
                await client.licenses.create(policy_id=made.license.policy_id, key=made.key)
        assert caught.value.reason == "KEY_TAKEN"
        new = await client.licenses.create(policy_id=made.license.policy_id)
        assert (await client.validate(key=new.key)).valid
