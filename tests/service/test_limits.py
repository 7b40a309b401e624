"""Rates, as callers meet them: what is refused and how it is told, who sets them, and from when on they hold."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import aiohttp
import grpc
import pytest
import pytest_asyncio
from lictor import AsyncLictor
from lictor.account.v1 import account_service_pb2 as account
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1.validation_service_pb2 import BatchValidateLicensesRequest, ValidateLicenseRequest

from tests.helpers.builders import assert_same, events, open_shop, refused, send, unchanged, uuid
from tests.helpers.echo import refusal
from tests.helpers.serving import samples
from tests.helpers.suite import Suite, World

WHO = account.WhoAmIRequest()


@pytest_asyncio.fixture(loop_scope="session")
async def operator(suite: Suite) -> AsyncGenerator[AsyncLictor]:
    async with suite.client(suite.operator_key) as client:
        yield client


async def refusals(suite: Suite, key: str, calls: int) -> int:
    """How many calls were refused, of so many one after the other."""
    found = 0
    for _ in range(calls):
        try:
            await send(suite, WHO, key)
        except grpc.aio.AioRpcError as error:
            assert refusal(error).reason == "RATE_LIMITED"
            found += 1
    return found


async def test_a_call_over_the_limit_is_told_which_and_how_long(
    suite: Suite, world: World, operator: AsyncLictor
) -> None:
    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 1})
    await send(suite, WHO, world.test_key)
    found = await refused(suite, WHO, world.test_key)
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert dict(found.info.metadata) == {"limit": "management_calls_per_second", "allowed": "1"}
    assert found.retry_ms is not None
    assert found.retry_ms >= 1
    assert found.message == (
        f"the limit is 1 management calls a second per credential; there is room again in {found.retry_ms} ms"
    )
    await send(suite, WHO, world.live_key)  # another credential


async def test_nothing_is_done_for_a_call_over_the_limit(suite: Suite, world: World, operator: AsyncLictor) -> None:
    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 1})
    await send(suite, WHO, world.test_key)
    async with unchanged(suite, world):
        found = await refused(suite, account.CreateApiKeyRequest(scopes=["keys:read"]), world.test_key)
        assert found.reason == "RATE_LIMITED"


async def test_the_client_waits_as_long_as_it_is_told(suite: Suite, world: World, operator: AsyncLictor) -> None:
    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 5})
    for _ in range(8):
        assert (await world.test.whoami()).account_id == world.account_id


async def test_limits_hold_from_the_next_call_on(suite: Suite, world: World, operator: AsyncLictor) -> None:
    assert await refusals(suite, world.test_key, 20) == 0, "far from the default"
    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 1})
    assert await refusals(suite, world.test_key, 3) >= 2
    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 0})
    assert await refusals(suite, world.test_key, 50) == 0, "0 is none"
    await operator.accounts.update(world.account_id, limits={})
    assert (await operator.accounts.get(world.account_id)).limits == account.AccountLimits()


async def test_hot_calls_and_operators_have_no_rate(suite: Suite, world: World, operator: AsyncLictor) -> None:
    made = await (await open_shop(world.test)).issue()
    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 1})
    for _ in range(20):
        request = ValidateLicenseRequest(license=LicenseSelector(license_id=made.license.license_id))
        assert (await send(suite, request, world.test_key)).valid
    for _ in range(20):
        await send(suite, WHO, suite.operator_key)


async def test_a_key_that_there_is_not_is_guessed_so_often_by_what_is_shipped(
    suite: Suite, world: World, operator: AsyncLictor
) -> None:
    """Also once the process knows by heart that there is none: the secret key has asked before."""
    await operator.accounts.update(world.account_id, limits={"license_calls_per_second": 3})
    shipped = (await world.test.api_keys.create(kind="PUBLISHABLE", scopes=["licenses:validate"])).secret
    request = ValidateLicenseRequest(license=LicenseSelector(license_key="NO-SUCH-KEY"))
    for _ in range(4):
        assert not (await send(suite, request, world.test_key)).valid
    for _ in range(3):
        assert not (await send(suite, request, shipped)).valid
    assert (await refused(suite, request, shipped)).reason == "RATE_LIMITED"


async def test_a_license_is_asked_about_so_often_by_what_is_shipped(
    suite: Suite, world: World, operator: AsyncLictor
) -> None:
    shop = await open_shop(world.test)
    made, other = await shop.issue(), await shop.issue()
    await operator.accounts.update(world.account_id, limits={"license_calls_per_second": 3})
    shipped = (await world.test.api_keys.create(kind="PUBLISHABLE", scopes=["licenses:validate"])).secret
    request = ValidateLicenseRequest(license=LicenseSelector(license_key=made.key))
    for _ in range(3):
        assert (await send(suite, request, shipped)).valid
    found = await refused(suite, request, shipped)
    assert (found.reason, dict(found.info.metadata)) == (
        "RATE_LIMITED", {"limit": "license_calls_per_second", "allowed": "3"},
    )  # fmt: skip
    assert (await send(suite, ValidateLicenseRequest(license=LicenseSelector(license_key=other.key)), shipped)).valid
    found = await refused(suite, BatchValidateLicensesRequest(requests=[request] * 4), shipped)
    assert found.reason == "RATE_LIMITED"
    assert (await send(suite, request, world.test_key)).valid, "the vendor's own key has no such rate"


async def test_a_customer_session_calls_so_often_a_minute(suite: Suite, world: World, operator: AsyncLictor) -> None:
    made = await (await open_shop(world.test)).issue(customer_email="ada@example.com")
    await operator.accounts.update(world.account_id, limits={"session_calls_per_minute": 2})
    session = (await world.test.customers.create_session(made.license.customer_id)).token
    for _ in range(2):
        await send(suite, WHO, session)
    found = await refused(suite, WHO, session)
    assert (found.reason, found.info.metadata["limit"]) == ("RATE_LIMITED", "session_calls_per_minute")
    assert 1000 < (found.retry_ms or 0) <= 30_000


async def counted(suite: Suite) -> float:
    """Calls of WhoAmI that were refused for their rate, by the metrics."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{suite.bound.ops_addr}/metrics") as answer:
        found = samples(await answer.text(), "lictor_calls_total")
    wanted = {"method": "WhoAmI", "code": "RESOURCE_EXHAUSTED", "reason": "RATE_LIMITED"}
    return sum(value for labels, value in found.items() if wanted.items() <= dict(labels).items())


async def test_what_is_refused_for_its_rate_is_counted(suite: Suite, world: World, operator: AsyncLictor) -> None:
    await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 1})
    before = await counted(suite)
    await send(suite, WHO, world.test_key)
    await refused(suite, WHO, world.test_key)
    assert await counted(suite) == before + 1


async def test_an_update_changes_what_it_names(suite: Suite, world: World, operator: AsyncLictor) -> None:
    before = await operator.accounts.get(world.account_id)
    name = uuid()
    changed = (await operator.accounts.update(world.account_id, external_id=name, etag=before.etag)).account
    assert (changed.external_id, changed.display_name, changed.revision) == (name, before.display_name, 2)
    changed = (await operator.accounts.update(world.account_id, display_name="Other")).account
    assert (changed.external_id, changed.display_name) == (name, "Other")
    changed = (
        await operator.accounts.update(world.account_id, external_id=None, limits={"management_calls_per_second": 9})
    ).account
    assert (changed.external_id, changed.limits.management_calls_per_second) == ("", 9)
    assert await operator.accounts.get(world.account_id) == changed
    assert changed in [found async for found in operator.accounts.list(page_size=1000)]
    told = (await events(suite, world.account_id))[-1]
    assert (told["type"], told["data"]["limits"]) == ("account.updated", {"management_calls_per_second": 9})
    suspended = (await operator.accounts.suspend(world.account_id)).account
    assert suspended.limits == changed.limits


async def test_an_update_is_repeated_without_effect(suite: Suite, world: World) -> None:
    request = account.UpdateAccountRequest(account_id=world.account_id, display_name="Once", request_id=uuid())
    first = await send(suite, request, suite.operator_key)
    assert_same(await send(suite, request, suite.operator_key), first)
    assert first.account.revision == 2


BAD: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "negative": (
        {"limits": account.AccountLimits(management_calls_per_second=-1)},
        [("limits.management_calls_per_second", "OUT_OF_RANGE")],
    ),
    "everything": (
        {
            "account_id": "",
            "etag": "x" * 65,
            "external_id": "x" * 256,
            "display_name": "x" * 256,
            "limits": account.AccountLimits(management_calls_per_second=-1),
            "request_id": "no",
        },
        [
            ("request_id", "UUID_INVALID"),
            ("account_id", "REQUIRED"),
            ("etag", "LENGTH_OUT_OF_RANGE"),
            ("external_id", "LENGTH_OUT_OF_RANGE"),
            ("display_name", "LENGTH_OUT_OF_RANGE"),
            ("limits.management_calls_per_second", "OUT_OF_RANGE"),
        ],
    ),
    "nothing": ({}, [("update_mask", "REQUIRED")]),
    "no name": ({"update_mask": {"paths": ["display_name"]}}, [("display_name", "REQUIRED")]),
    "unknown": ({"update_mask": {"paths": ["status"]}}, [("update_mask", "FIELD_UNKNOWN")]),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_fields_are_named_and_change_nothing(suite: Suite, world: World, name: str) -> None:
    fields, expected = BAD[name]
    request = account.UpdateAccountRequest(**cast("Any", {"account_id": world.account_id, **fields}))
    async with unchanged(suite, world):
        found = await refused(suite, request, suite.operator_key)
    assert found.reason == "FIELD_INVALID"
    assert found.violations == expected


async def test_other_refusals_of_an_update(suite: Suite, world: World, operator: AsyncLictor) -> None:
    taken = uuid()
    await operator.accounts.create(display_name="Other", external_id=taken)
    async with unchanged(suite, world):
        cases: list[tuple[dict[str, str], str, str]] = [
            ({"account_id": "acc_none"}, suite.operator_key, "ACCOUNT_NOT_FOUND"),
            ({"etag": "r9"}, suite.operator_key, "ETAG_MISMATCH"),
            ({"external_id": taken}, suite.operator_key, "EXTERNAL_ID_TAKEN"),
            ({}, world.live_key, "CALLER_NOT_ALLOWED"),
        ]
        for more, key, reason in cases:
            fields = {"account_id": world.account_id, "display_name": "New", **more}
            assert (await refused(suite, account.UpdateAccountRequest(**cast("Any", fields)), key)).reason == reason
