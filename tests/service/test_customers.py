"""Customers: how they are found and changed, and that a ban holds for all their licenses when the call returns."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from lictor import FailedPrecondition, LictorError
from lictor.license.v1.customer_service_pb2 import (
    BanCustomerRequest,
    Customer,
    GetCustomerRequest,
    ListCustomersRequest,
    UnbanCustomerRequest,
    UpdateCustomerRequest,
)

from services.license.customer_model import CustomerAction, CustomerStatus
from tests.helpers.builders import (
    Shop,
    ago,
    ahead,
    events,
    key_with,
    open_shop,
    refused,
    send,
    shift,
    table,
    unchanged,
    uuid,
)
from tests.helpers.suite import Suite, World

LIFE = table(
    """
             ban     unban
    active   banned  -
    banned   -       active
    """
)


async def customer_of(shop: Shop, **named: Any) -> Customer:
    made = await shop.issue(**(named or {"customer_email": f"{uuid()}@example.com"}))
    return await shop.client.customers.get(made.license.customer_id)


async def test_a_customer_is_found_by_each_of_its_names(world: World) -> None:
    shop = await open_shop(world.test)
    made = await customer_of(shop, customer_email="Ada@Example.com", customer_name="Ada")
    assert (made.email, made.display_name, made.banned, made.revision) == ("ada@example.com", "Ada", False, 1)
    assert not made.HasField("ban_time")
    await world.test.customers.update(made.customer_id, subject_ref="user/7")
    found = await world.test.customers.get(made.customer_id)
    assert await world.test.customers.get(email="ADA@example.com") == found
    assert await world.test.customers.get(subject_ref="user/7") == found


@pytest.mark.parametrize("names", [(), ("customer_id", "email"), ("email", "subject_ref")])
async def test_a_customer_is_named_in_one_way(suite: Suite, world: World, names: tuple[str, ...]) -> None:
    error = await refused(suite, GetCustomerRequest(**dict.fromkeys(names, "x")), world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("customer_id", "EXACTLY_ONE")])


async def test_strangers_customers_are_as_if_they_were_not(suite: Suite, world: World) -> None:
    live = await customer_of(await open_shop(world.live), customer_email="ada@example.com")
    async with suite.world() as other:
        foreign = await customer_of(await open_shop(other.test), customer_email="eve@example.com")
        for request in (
            GetCustomerRequest(customer_id=live.customer_id),
            GetCustomerRequest(email="ada@example.com"),
            GetCustomerRequest(customer_id=foreign.customer_id),
            GetCustomerRequest(email="eve@example.com"),
            GetCustomerRequest(subject_ref="nobody"),
        ):
            error = await refused(suite, request, world.test_key)
            assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "CUSTOMER_NOT_FOUND")


async def test_lists_are_narrowed_by_each_filter(world: World) -> None:
    shop = await open_shop(world.test)
    ada = (await customer_of(shop, customer_email="ada@example.com")).customer_id
    bob = (await customer_of(shop, subject_ref="bob")).customer_id
    eve = (await customer_of(shop, customer_email="eve@example.com")).customer_id
    await world.test.customers.ban(eve)

    async def listed(**filters: Any) -> list[str]:
        return [found.customer_id async for found in world.test.customers.list(**filters, page_size=2)]

    assert await listed() == [ada, bob, eve]
    assert await listed(email="ADA@example.com") == [ada]
    assert await listed(subject_ref="bob") == [bob]
    assert await listed(banned=True) == [eve]
    assert await listed(banned=False) == [ada, bob]
    assert await listed(email="ada@example.com", banned=True) == []
    assert [found async for found in world.live.customers.list()] == []


async def test_a_page_token_belongs_to_its_filters(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    for _ in range(2):
        await customer_of(shop)
    token = (await send(suite, ListCustomersRequest(page_size=1), world.test_key)).next_page_token
    error = await refused(suite, ListCustomersRequest(page_token=token, banned=False), world.test_key)
    assert error.reason == "PAGE_TOKEN_INVALID"


UPDATES: dict[str, Any] = {
    "email": "new@example.com", "subject_ref": "new", "display_name": "New", "labels": {"k": "v"}, "metadata": {"k": 1},
}  # fmt: skip


@pytest.mark.parametrize("field", UPDATES)
async def test_an_update_changes_and_clears_what_it_names_alone(suite: Suite, world: World, field: str) -> None:
    before = await customer_of(await open_shop(world.test), customer_email="a@example.com")
    await world.test.customers.update(before.customer_id, subject_ref="s", labels={"x": "x"}, metadata={"x": 1})
    before = await world.test.customers.get(before.customer_id)
    request = UpdateCustomerRequest(
        customer_id=before.customer_id, update_mask=FieldMask(paths=[field]), display_name="No", email="no@example.com"
    )
    cast("Message", request).ClearField(field)
    request.MergeFrom(UpdateCustomerRequest(**{field: UPDATES[field]}))
    after = (await send(suite, request, world.test_key)).customer
    changed = {f.name for f in Customer.DESCRIPTOR.fields if getattr(before, f.name) != getattr(after, f.name)}
    assert changed == {field, "update_time", "etag", "revision"}
    assert await world.test.customers.get(before.customer_id) == after
    clear = UpdateCustomerRequest(customer_id=before.customer_id, update_mask=FieldMask(paths=[field]))
    assert not getattr((await send(suite, clear, world.test_key)).customer, field)
    told = await events(suite, before.customer_id)
    assert [event["type"] for event in told] == ["customer.created", *["customer.updated"] * 3]
    assert [event["subject_seq"] for event in told] == [1, 2, 3, 4]


async def test_an_email_is_kept_in_lower_case_and_is_an_email(suite: Suite, world: World) -> None:
    made = await customer_of(await open_shop(world.test))
    changed = await world.test.customers.update(made.customer_id, email="Ada@Example.COM")
    assert changed.customer.email == "ada@example.com"
    async with unchanged(suite, world):
        error = await refused(
            suite, UpdateCustomerRequest(customer_id=made.customer_id, email="no email"), world.test_key
        )
    assert error.violations == [("email", "EMAIL_INVALID")]


async def test_a_customer_keeps_a_name(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    by_email = await customer_of(shop)
    by_ref = await customer_of(shop, subject_ref="x")
    for customer_id, paths in (
        (by_email.customer_id, ["email"]),
        (by_ref.customer_id, ["subject_ref"]),
        (by_email.customer_id, ["email", "subject_ref"]),
    ):
        request = UpdateCustomerRequest(customer_id=customer_id, update_mask=FieldMask(paths=paths))
        async with unchanged(suite, world):
            error = await refused(suite, request, world.test_key)
        assert (error.reason, error.violations) == ("FIELD_INVALID", [(path, "REQUIRED") for path in paths])


async def test_two_customers_never_have_one_name(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    await customer_of(shop, customer_email="ada@example.com")
    await customer_of(shop, subject_ref="bob")
    eve = await customer_of(shop)
    for field, request in (
        ("email", UpdateCustomerRequest(customer_id=eve.customer_id, email="Ada@example.com")),
        ("subject_ref", UpdateCustomerRequest(customer_id=eve.customer_id, subject_ref="bob")),
    ):
        async with unchanged(suite, world):
            error = await refused(suite, request, world.test_key)
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CUSTOMER_TAKEN")
        assert dict(error.info.metadata) == {"field": field}


def test_the_table_names_every_pair() -> None:
    assert set(LIFE) == {(status.value, action.value) for status in CustomerStatus for action in CustomerAction}


@pytest.mark.parametrize(("status", "action"), sorted(LIFE))
async def test_every_pair(suite: Suite, world: World, status: str, action: str) -> None:
    made = await customer_of(await open_shop(world.test))
    customer_id = made.customer_id
    if status == "banned":
        await world.test.customers.ban(customer_id, reason="first")
    before = await events(suite, customer_id)
    kind = {"ban": BanCustomerRequest, "unban": UnbanCustomerRequest}[action]
    request = kind(customer_id=customer_id, reason="because")
    expected = LIFE[status, action]
    if expected == "-":
        async with unchanged(suite, world):
            error = await refused(suite, request, world.test_key)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_TRANSITION_INVALID")
        assert dict(error.info.metadata) == {"from": status, "action": action}
        return
    after = (await send(suite, request, world.test_key)).customer
    assert await world.test.customers.get(customer_id) == after
    banned = expected == "banned"
    assert (after.banned, after.HasField("ban_time"), after.ban_reason) == (banned, banned, "because" if banned else "")
    if banned:
        assert ago(minutes=1) < after.ban_time.ToDatetime(tzinfo=ago().tzinfo) < ahead(minutes=1)
    [new] = (await events(suite, customer_id))[len(before) :]
    assert (new["type"], new["reason"], new["in_outbox"]) == (f"customer.{action}ned", "because", True)


async def test_a_ban_holds_for_all_licenses_when_the_call_returns_and_so_does_its_end(world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    issued = [await at.issue(customer_email="ada@example.com") for at in (shop, other, shop)]
    bystander = await shop.issue(customer_email="bob@example.com")
    nobodys = await shop.issue()
    customer_id = issued[0].license.customer_id
    for _ in range(3):
        await world.test.customers.ban(customer_id)
        for made in issued:
            for result in (
                await world.test.validate(key=made.key),
                await world.test.validate(license_id=made.license.license_id),
            ):
                assert (result.code, result.all_codes, result.valid) == ("BANNED", ("BANNED",), False)
                assert result.detail == "The customer who holds the license is banned."
                assert not result.decision.HasField("valid_until")
        for made in (bystander, nobodys):
            assert (await world.test.validate(key=made.key)).valid
        await world.test.customers.unban(customer_id)
        for made in issued:
            assert (await world.test.validate(key=made.key)).valid


async def test_licenses_keep_their_own_states_under_a_ban(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made = await shop.issue(customer_email="ada@example.com")
    license_id = made.license.license_id
    await world.test.customers.ban(made.license.customer_id)
    await world.test.licenses.suspend(license_id)
    assert (await world.test.validate(key=made.key)).all_codes == ("BANNED", "SUSPENDED")
    await shift(suite, "license.license", "license_id", license_id, starts_at=ago(hours=2), expires_at=ago(hours=1))
    assert (await world.test.validate(key=made.key)).all_codes == ("BANNED", "SUSPENDED", "EXPIRED")
    await world.test.licenses.ban(license_id)
    result = await world.test.validate(key=made.key)
    assert (result.all_codes, result.detail) == (("BANNED", "EXPIRED"), "The license is banned.")
    await world.test.customers.unban(made.license.customer_id)
    assert (await world.test.validate(key=made.key)).code == "BANNED"


@pytest.mark.parametrize("name", ["customer_id", "customer_email", "subject_ref"])
async def test_a_banned_customer_gets_no_license(suite: Suite, world: World, name: str) -> None:
    shop = await open_shop(world.test)
    made = await customer_of(shop, customer_email="ada@example.com")
    await world.test.customers.update(made.customer_id, subject_ref="ada")
    await world.test.customers.ban(made.customer_id)
    value = {"customer_id": made.customer_id, "customer_email": "ADA@example.com", "subject_ref": "ada"}[name]
    async with unchanged(suite, world):
        with pytest.raises(FailedPrecondition) as caught:
            await shop.issue(**{name: value})
    assert (caught.value.reason, caught.value.metadata) == ("CUSTOMER_BANNED", {"customerId": made.customer_id})
    await world.test.customers.unban(made.customer_id)
    await shop.issue(**{name: value})


async def test_no_license_outlives_a_ban_that_it_was_issued_beside(world: World) -> None:
    """Raced: the license is refused, or is there and does not validate."""
    shop = await open_shop(world.test)
    for number in range(8):
        made = await customer_of(shop, subject_ref=f"s{number}")
        ban = asyncio.create_task(world.test.customers.ban(made.customer_id))
        issued = await asyncio.gather(
            *(shop.issue(customer_id=made.customer_id) for _ in range(3)), return_exceptions=True
        )
        await ban
        for one in issued:
            if isinstance(one, BaseException):
                assert isinstance(one, FailedPrecondition)
                assert one.reason == "CUSTOMER_BANNED"
            else:
                assert (await world.test.validate(key=one.key)).code == "BANNED"


async def test_an_etag_guards_every_change(suite: Suite, world: World) -> None:
    made = await customer_of(await open_shop(world.test))
    await world.test.customers.update(made.customer_id, display_name="x")
    async with unchanged(suite, world):
        for request in (
            UpdateCustomerRequest(customer_id=made.customer_id, display_name="y", etag=made.etag),
            BanCustomerRequest(customer_id=made.customer_id, etag=made.etag),
            UnbanCustomerRequest(customer_id=made.customer_id, etag=made.etag),
        ):
            assert (await refused(suite, request, world.test_key)).reason == "ETAG_MISMATCH"


async def test_scopes_of_customers(suite: Suite, world: World) -> None:
    made = await customer_of(await open_shop(world.test))
    async with suite.client(await key_with(world.test, "customers:read")) as reader:
        assert await reader.customers.get(made.customer_id) == made
        with pytest.raises(LictorError) as caught:
            await reader.customers.ban(made.customer_id)
    assert caught.value.metadata == {"scope": "customers:write"}
