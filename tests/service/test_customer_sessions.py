"""Customer sessions: one customer, and its own licenses, for a short while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest
from lictor import FailedPrecondition
from lictor.account.v1.account_service_pb2 import PrincipalKind, WhoAmIRequest
from lictor.license.v1.customer_service_pb2 import (
    CreateCustomerSessionRequest,
    Customer,
    GetCustomerRequest,
    RevokeCustomerSessionsRequest,
)
from lictor.license.v1.license_service_pb2 import (
    GetLicenseRequest,
    License,
    ListLicensesRequest,
    RevealLicenseKeyRequest,
    RotateLicenseKeyRequest,
)

from services.license.customer_access import SHOWN_TO_CUSTOMERS
from tests.helpers.builders import (
    assert_same,
    events,
    key_with,
    open_shop,
    refused,
    rows,
    send,
    unchanged,
    uuid,
)
from tests.helpers.credentials import (
    Portal,
    bearer_of,
    open_portal,
    refused_as,
    send_as,
)
from tests.helpers.suite import Suite, World


async def others_license(world: World, portal: Portal) -> str:
    return (await portal.shop.issue(customer_email="eve@example.com")).license.license_id


async def test_a_session_says_whose_it_is_and_how_long(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    for ttl, expected in ((None, timedelta(minutes=15)), (timedelta(minutes=1), None), (timedelta(hours=24), None)):
        made = await world.test.customers.create_session(portal.customer_id, ttl=ttl)
        session = made.customer_session
        assert made.token.startswith("cs_test_")
        assert session.customer_id == portal.customer_id
        assert session.expire_time.ToDatetime() - session.create_time.ToDatetime() == (expected or ttl)
        who = await send_as(suite, WhoAmIRequest(), bearer_of(made.token))
        assert (who.kind, who.account_id, who.customer_id) == (
            PrincipalKind.CUSTOMER_SESSION,
            world.account_id,
            portal.customer_id,
        )
        assert (who.key_id, who.expire_time, list(who.scopes)) == (
            session.customer_session_id,
            session.expire_time,
            [],
        )
    live = await (await open_shop(world.live)).issue(subject_ref="x")
    assert (await world.live.customers.create_session(live.license.customer_id)).token.startswith("cs_live_")


@pytest.mark.parametrize("seconds", [0, 59, -60, 24 * 3600 + 1])
async def test_a_session_is_neither_shorter_nor_longer_than_allowed(suite: Suite, world: World, seconds: int) -> None:
    portal = await open_portal(suite, world)
    request = CreateCustomerSessionRequest(customer_id=portal.customer_id)
    request.ttl.seconds = seconds
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("ttl", "DURATION_OUT_OF_RANGE")])


async def test_all_bad_fields_are_told_at_once(suite: Suite, world: World) -> None:
    long = "x" * 256
    create = CreateCustomerSessionRequest(request_id="no", customer_id=long)
    create.ttl.seconds = 1
    create.reason = long
    revoke = RevokeCustomerSessionsRequest(request_id="no", reason=long)
    async with unchanged(suite, world):
        assert (await refused(suite, create, world.test_key)).violations == [
            ("request_id", "UUID_INVALID"),
            ("customer_id", "LENGTH_OUT_OF_RANGE"),
            ("ttl", "DURATION_OUT_OF_RANGE"),
            ("reason", "LENGTH_OUT_OF_RANGE"),
        ]
        assert (await refused(suite, revoke, world.test_key)).violations == [
            ("request_id", "UUID_INVALID"),
            ("customer_id", "REQUIRED"),
            ("reason", "LENGTH_OUT_OF_RANGE"),
        ]


async def test_a_token_is_shown_once_and_kept_nowhere(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    request_id = uuid()
    first = await world.test.customers.create_session(portal.customer_id, reason="asked", request_id=request_id)
    async with unchanged(suite, world):
        again = world.test.customers.create_session(portal.customer_id, reason="asked", request_id=request_id)
        assert_same(await again, first)
    await world.test.customers.revoke_sessions(portal.customer_id, reason="lost")
    stored = str(await rows(suite, world.account_id))
    for token in (first.token, portal.token):
        assert token not in stored
        assert token.encode().hex() not in stored
        assert token[-6:] not in stored
    told = await events(suite, portal.customer_id)
    assert [event["type"] for event in told] == [
        "customer.created", "customer.session.created", "customer.session.created", "customer.session.revoked",
    ]  # fmt: skip
    ids = [portal.session_id, first.customer_session.customer_session_id]
    assert [event["data"]["customer_session_id"] for event in told[1:3]] == ids
    assert [event["reason"] for event in told[1:3]] == ["", "asked"]
    assert (told[3]["data"]["customer_session_ids"], told[3]["reason"]) == (ids, "lost")


async def test_scopes_of_sessions(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    key = await key_with(world.test, "customers:write", "licenses:write", "licenses:read")
    for request in (
        CreateCustomerSessionRequest(customer_id=portal.customer_id),
        RevokeCustomerSessionsRequest(customer_id=portal.customer_id),
    ):
        assert dict((await refused(suite, request, key)).info.metadata) == {"scope": "sessions:write"}
    maker = await key_with(world.test, "sessions:write")
    assert (await send(suite, CreateCustomerSessionRequest(customer_id=portal.customer_id), maker)).token


async def test_only_ones_own_customers_who_are_not_banned_get_sessions(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    live = (await (await open_shop(world.live)).issue(subject_ref="x")).license.customer_id
    async with suite.world() as other:
        foreign = (await open_portal(suite, other)).customer_id
        async with unchanged(suite, world, other):
            for customer_id in (live, foreign, "cus_none"):
                for kind in (CreateCustomerSessionRequest, RevokeCustomerSessionsRequest):
                    error = await refused(suite, kind(customer_id=customer_id), world.test_key)
                    assert error.reason == "CUSTOMER_NOT_FOUND"
    await world.test.customers.ban(portal.customer_id)
    async with unchanged(suite, world):
        with pytest.raises(FailedPrecondition) as caught:
            await world.test.customers.create_session(portal.customer_id)
    assert caught.value.reason == "CUSTOMER_BANNED"


async def test_a_customer_sees_itself_without_what_is_the_vendors(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    await world.test.customers.update(
        portal.customer_id, subject_ref="ada", display_name="Ada", labels={"vip": "no"}, metadata={"risk": 9}
    )
    known = await world.test.customers.get(portal.customer_id)
    expected = Customer()
    expected.CopyFrom(known)
    for field in ("labels", "metadata", "ban_reason", "ban_time"):
        expected.ClearField(field)  # type: ignore[arg-type] - the stubs take literal names alone
    async with portal.client as client:
        assert await client.customers.get(portal.customer_id) == expected != known
        assert await client.customers.get(email="ada@example.com") == expected
        assert await client.customers.get(subject_ref="ada") == expected


async def test_other_customers_are_as_if_they_were_not(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    other = (await portal.shop.issue(customer_email="eve@example.com")).license.customer_id
    for request in (
        GetCustomerRequest(customer_id=other),
        GetCustomerRequest(email="eve@example.com"),
        GetCustomerRequest(customer_id="cus_none"),
        GetCustomerRequest(email="nobody@example.com"),
    ):
        error = await refused_as(suite, request, bearer_of(portal.token))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "CUSTOMER_NOT_FOUND")


async def test_a_customer_sees_its_own_licenses_without_what_is_the_vendors(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    await world.test.licenses.update(
        portal.license_id, external_id="crm-7", display_name="Pro", labels={"a": "b"}, metadata={"deal": 7}
    )
    await world.test.licenses.suspend(portal.license_id, reason="suspected of fraud")
    second = (await portal.shop.issue(customer_id=portal.customer_id)).license
    await others_license(world, portal)
    await portal.shop.issue()
    known = await world.test.licenses.get(portal.license_id)
    expected = License()
    expected.CopyFrom(known)
    for field in ("external_id", "status_reason", "labels", "metadata", "overrides", "marks", "last_validate_time"):
        expected.ClearField(field)  # type: ignore[arg-type] - the stubs take literal names alone
    async with portal.client as client:
        assert await client.licenses.get(portal.license_id) == expected
        assert [found async for found in client.licenses.list(page_size=1)] == [expected, second]


def test_what_customers_see_is_chosen_field_by_field() -> None:
    """A field that is added to a message is not shown to customers before somebody has thought of it."""
    hidden = {
        "external_id", "status_reason", "labels", "metadata", "overrides", "marks", "last_validate_time", "ban_time",
        "ban_reason",
    }  # fmt: skip
    for message in (License, Customer):
        shown = set(SHOWN_TO_CUSTOMERS[message])
        assert shown <= {field.name for field in message.DESCRIPTOR.fields}
        assert not shown & hidden


async def test_filters_narrow_and_never_widen(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    eve = (await portal.shop.issue(customer_email="eve@example.com")).license

    async def listed(**filters: Any) -> list[str]:
        answer = await send_as(suite, ListLicensesRequest(**filters), bearer_of(portal.token))
        assert not answer.next_page_token
        return [found.license_id for found in answer.licenses]

    for filters in (
        {},
        {"customer_id": portal.customer_id},
        {"customer_email": "ada@example.com"},
        {"product_id": portal.shop.product.product_id},
        {"policy_id": portal.shop.policy.policy_id},
    ):
        assert await listed(**filters) == [portal.license_id], filters
    for filters in (
        {"customer_id": eve.customer_id},
        {"customer_id": "cus_none"},
        {"customer_email": "eve@example.com"},
        {"product_id": "prod_none"},
    ):
        assert await listed(**filters) == [], filters


@pytest.mark.parametrize("whose", ["another customer's", "nobody's", "of another world", "of a stranger", "unknown"])
async def test_others_licenses_are_as_if_they_were_not(suite: Suite, world: World, whose: str) -> None:
    portal = await open_portal(suite, world)
    async with suite.world() as stranger:
        match whose:
            case "another customer's":
                license_id = await others_license(world, portal)
            case "nobody's":
                license_id = (await portal.shop.issue()).license.license_id
            case "of another world":
                issued = await (await open_shop(world.live)).issue(customer_email="ada@example.com")
                license_id = issued.license.license_id
            case "of a stranger":
                license_id = (await open_portal(suite, stranger)).license_id
            case _:
                license_id = "lic_none"
        async with unchanged(suite, world, stranger):
            for request in (
                GetLicenseRequest(license_id=license_id),
                RevealLicenseKeyRequest(license_id=license_id),
                RotateLicenseKeyRequest(license_id=license_id),
                RotateLicenseKeyRequest(license_id=license_id, key="chosen-by-me"),
            ):
                error = await refused_as(suite, request, bearer_of(portal.token))
                assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "LICENSE_NOT_FOUND")


async def test_a_customer_is_shown_its_key_and_the_record_says_by_which_session(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    await world.test.licenses.update(portal.license_id, metadata={"deal": 7})
    async with portal.client as client:
        shown = await client.licenses.reveal_key(portal.license_id, reason="new laptop")
    assert shown.key == portal.issued.key
    assert not shown.license.HasField("metadata")
    told = (await events(suite, portal.license_id))[-1]
    assert (told["type"], told["actor"], told["reason"]) == ("license.key.revealed", portal.session_id, "new laptop")


async def test_a_key_that_is_not_sealed_is_shown_to_nobody(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, key_storage="HASH_ONLY")
    issued = await shop.issue(customer_email="ada@example.com")
    made = await world.test.customers.create_session(issued.license.customer_id)
    request = RevealLicenseKeyRequest(license_id=issued.license.license_id)
    async with unchanged(suite, world):
        assert (await refused_as(suite, request, bearer_of(made.token))).reason == "KEY_NOT_STORED"


async def test_a_customer_rotates_its_key(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    await world.test.licenses.update(portal.license_id, metadata={"deal": 7})
    async with portal.client as client:
        done = await client.licenses.rotate_key(portal.license_id, reason="posted it")
    assert done.key.startswith("SHOP-")
    assert not done.license.HasField("metadata")
    assert (await world.test.validate(key=done.key)).valid
    assert (await world.test.validate(key=portal.issued.key)).code == "NOT_FOUND"
    told = (await events(suite, portal.license_id))[-1]
    assert (told["type"], told["actor"]) == ("license.key.rotated", portal.session_id)


async def test_a_protected_license_gets_another_key_from_the_vendor_alone(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    request = RotateLicenseKeyRequest(license_id=portal.license_id)
    await world.test.policies.update(portal.shop.policy.policy_id, protected=True)
    async with unchanged(suite, world):
        error = await refused_as(suite, request, bearer_of(portal.token))
        assert (error.reason, dict(error.info.metadata)) == ("CALLER_NOT_ALLOWED", {"caller": "CUSTOMER_SESSION"})
        assert "protected" in error.message
    shown = await send_as(suite, RevealLicenseKeyRequest(license_id=portal.license_id), bearer_of(portal.token))
    assert shown.key == portal.issued.key
    assert (await send(suite, request, world.test_key)).key
    await world.test.policies.update(portal.shop.policy.policy_id, protected=False)
    assert (await send_as(suite, request, bearer_of(portal.token))).key


async def test_a_customer_chooses_no_key(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    request = RotateLicenseKeyRequest(license_id=portal.license_id, key="aaaaaaaa")
    async with unchanged(suite, world):
        error = await refused_as(suite, request, bearer_of(portal.token))
    assert (error.reason, dict(error.info.metadata)) == ("CALLER_NOT_ALLOWED", {"caller": "CUSTOMER_SESSION"})


async def test_a_stored_answer_is_found_by_the_same_customer_alone(suite: Suite, world: World) -> None:
    """Whoever knows the request id of another's call gets neither its key nor its view of the license."""
    portal = await open_portal(suite, world)
    eves = await portal.shop.issue(customer_email="eve@example.com")
    eve = await world.test.customers.create_session(eves.license.customer_id)
    request_id = uuid()
    request = RevealLicenseKeyRequest(request_id=request_id, license_id=portal.license_id)
    vendors = await send(suite, request, world.test_key)
    assert vendors.key == portal.issued.key
    error = await refused_as(suite, request, bearer_of(eve.token))
    assert error.reason == "LICENSE_NOT_FOUND"
    first = await send_as(suite, request, bearer_of(portal.token))
    assert first.revision_token != vendors.revision_token
    again = await world.test.customers.create_session(portal.customer_id)
    async with unchanged(suite, world):
        assert_same(await send_as(suite, request, bearer_of(again.token)), first)
    assert (await refused_as(suite, request, bearer_of(eve.token))).reason == "LICENSE_NOT_FOUND"
