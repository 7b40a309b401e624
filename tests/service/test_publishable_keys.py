"""Publishable keys and license keys as credentials: nothing without a proof, and of one's own license alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest
from lictor import AsyncLictor, InvalidArgument
from lictor.account.v1.account_service_pb2 import ApiKeyKind, CreateApiKeyRequest, PrincipalKind, WhoAmIRequest
from lictor.common.v1.common_pb2 import LicenseSelector, View
from lictor.license.v1.license_service_pb2 import CheckInLicenseRequest, ListLicensesRequest
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest, ValidationCode

from services.license.callers import MAX_PUBLISHABLE_BATCH, refuse_large_batch
from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.errors import DomainError
from shared.tenancy import ACCOUNT_SCOPES, PUBLISHABLE_SCOPES, Mode, Principal
from shared.tenancy import PrincipalKind as Caller
from tests.helpers.builders import (
    ago,
    ahead,
    at,
    events,
    key_with,
    open_shop,
    refused,
    rows,
    shift,
    unchanged,
    uuid,
)
from tests.helpers.credentials import (
    bearer_of,
    let_in,
    license_of,
    publishable,
    refused_as,
    send_as,
)
from tests.helpers.suite import Suite, World


def by_key(key: str, **more: Any) -> ValidateLicenseRequest:
    return ValidateLicenseRequest(license=LicenseSelector(license_key=key), **more)


def by_id(license_id: str) -> ValidateLicenseRequest:
    return ValidateLicenseRequest(license=LicenseSelector(license_id=license_id))


def code_of(answer: Any) -> str:
    return ValidationCode.Code.Name(answer.code)


def shipped(suite: Suite, publishable_key: str, license_key: str) -> AsyncLictor:
    return AsyncLictor(api_key=publishable_key, license_key=license_key, endpoint=suite.bound.api_addr)


async def test_a_publishable_key_says_what_it_is(suite: Suite, world: World) -> None:
    until = ahead(days=1)
    for client, prefix, mode in ((world.test, "pk_test_", "TEST"), (world.live, "pk_live_", "LIVE")):
        made = await publishable(client, display_name="app", expire_time=until)
        assert made.secret.startswith(prefix)
        assert (made.api_key.kind, made.api_key.hint) == (ApiKeyKind.PUBLISHABLE, made.secret[-4:])
        assert await client.api_keys.get(made.api_key.api_key_id) == made.api_key
        assert made.api_key in [key async for key in client.api_keys.list()]
        async with suite.client(made.secret) as caller:
            who = await caller.whoami()
        assert (who.kind, who.account_id, who.key_id) == (
            PrincipalKind.PUBLISHABLE_KEY,
            world.account_id,
            made.api_key.api_key_id,
        )
        assert (set(who.scopes), who.expire_time, who.license_id) == (PUBLISHABLE_SCOPES, at(until), "")
        assert Mode(mode) is api_keys.mode_of(KeyPrefix(prefix))
        [told] = await events(suite, made.api_key.api_key_id)
        assert (told["type"], told["data"]["kind"]) == ("api_key.created", "PUBLISHABLE")
        stored = str(await rows(suite, world.account_id))
        assert made.secret not in stored
        assert made.secret.encode().hex() not in stored


async def test_a_key_is_secret_unless_it_is_to_be_publishable(world: World) -> None:
    for kind in (None, "SECRET"):
        made = await world.test.api_keys.create(scopes=["keys:read"], kind=kind)
        assert (made.api_key.kind, made.secret[:8]) == (ApiKeyKind.SECRET, "sk_test_")


@pytest.mark.parametrize("scope", sorted(ACCOUNT_SCOPES - PUBLISHABLE_SCOPES))
async def test_a_publishable_key_holds_no_other_scope(suite: Suite, world: World, scope: str) -> None:
    request = CreateApiKeyRequest(kind=ApiKeyKind.PUBLISHABLE, scopes=["licenses:validate", scope])
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("scopes[1]", "SCOPE_NOT_PUBLISHABLE")])


async def test_scopes_in_the_record_that_a_publishable_key_cannot_hold_do_not_count(suite: Suite, world: World) -> None:
    made = await publishable(world.test)
    async with suite.admin() as conn:
        await conn.execute(
            "UPDATE license.api_key SET scopes = $2 WHERE api_key_id = $1",
            made.api_key.api_key_id,
            sorted(ACCOUNT_SCOPES),
        )
    async with suite.client(made.secret) as caller:
        assert set((await caller.whoami()).scopes) == PUBLISHABLE_SCOPES


async def test_a_publishable_key_is_made_by_those_alone_who_may_validate(suite: Suite, world: World) -> None:
    maker = await key_with(world.test, "keys:write")
    request = CreateApiKeyRequest(kind=ApiKeyKind.PUBLISHABLE, scopes=["licenses:validate"])
    async with unchanged(suite, world):
        error = await refused(suite, request, maker)
    assert (error.reason, dict(error.info.metadata)) == ("CALLER_NOT_ALLOWED", {"scope": "licenses:validate"})


async def test_bad_fields_of_a_publishable_key_are_told_at_once(suite: Suite, world: World) -> None:
    async with unchanged(suite, world):
        error = await refused(suite, CreateApiKeyRequest(kind=9), world.test_key)  # type: ignore[arg-type] - no such kind
        assert error.violations == [("kind", "ENUM_UNKNOWN"), ("scopes", "REQUIRED")]
        with pytest.raises(InvalidArgument):
            await world.test.api_keys.create(kind="PUBLISHABLE", scopes=[])


async def test_a_validation_by_key_is_that_of_a_secret_key(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    key = (await publishable(world.test)).secret
    for status in ("active", "suspended", "expired", "revoked", "banned"):
        made = await shop.issue_in(status)
        expected = await send_as(suite, by_key(made.key), bearer_of(world.test_key))
        found = await send_as(suite, by_key(made.key, view=View.DECISION), bearer_of(key))
        for answer in (expected, found):
            answer.ClearField("decision")
        assert found == expected
        assert not found.HasField("license")


async def test_a_license_is_named_by_its_key_alone(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    key = (await publishable(world.test)).secret
    for license_id in (made.license.license_id, "lic_unknown"):
        error = await refused_as(suite, by_id(license_id), bearer_of(key))
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
        assert dict(error.info.metadata) == {"caller": "PUBLISHABLE_KEY"}
        assert "license.license_key" in error.message
    error = await refused_as(suite, ValidateLicenseRequest(), bearer_of(key))
    assert error.violations == [("license", "EXACTLY_ONE")]


@pytest.mark.parametrize("view", [View.BASIC, View.FULL])
async def test_a_shipped_application_gets_decisions_alone(
    suite: Suite, world: World, view: View.Kind.ValueType
) -> None:
    made = await (await open_shop(world.test)).issue()
    key = (await publishable(world.test)).secret
    for authorization in (bearer_of(key), license_of(key, made.key)):
        error = await refused_as(suite, by_key(made.key, view=view), authorization)
        assert error.reason == "CALLER_NOT_ALLOWED"
        assert "DECISION" in error.message


async def test_keys_of_strangers_and_of_the_other_world_are_unknown(suite: Suite, world: World) -> None:
    live = await (await open_shop(world.live)).issue()
    key = (await publishable(world.test)).secret
    async with suite.world() as other:
        foreign = await (await open_shop(other.test)).issue()
        for license_key in (live.key, foreign.key, "NOPE-0000-0000-0000-0000"):
            assert code_of(await send_as(suite, by_key(license_key), bearer_of(key))) == "NOT_FOUND"
            assert not await let_in(suite, license_of(key, license_key))
        assert not await let_in(suite, license_of((await publishable(other.test)).secret, live.key))
        assert not await let_in(suite, license_of((await publishable(other.live)).secret, foreign.key))


@pytest.mark.parametrize("end", ["rotate", "expire", "revoke"])
async def test_an_ended_publishable_key_is_refused_with_and_without_a_license_key(
    suite: Suite, world: World, end: str
) -> None:
    made = await (await open_shop(world.test)).issue()
    key = await publishable(world.test, expire_time=ahead(hours=1))
    key_id = key.api_key.api_key_id
    both = (bearer_of(key.secret), license_of(key.secret, made.key))
    assert [await let_in(suite, one) for one in both] == [True, True]
    match end:
        case "rotate":
            new = await world.test.api_keys.rotate(key_id, overlap=timedelta(0))
            assert new.secret.startswith("pk_test_")
            assert (new.api_key.kind, new.replaced.kind) == (ApiKeyKind.PUBLISHABLE, ApiKeyKind.PUBLISHABLE)
            assert await let_in(suite, license_of(new.secret, made.key))
        case "expire":
            await shift(suite, "license.api_key", "api_key_id", key_id, expires_at=ago(seconds=1))
        case _:
            await world.test.api_keys.revoke(key_id)
    assert [await let_in(suite, one) for one in both] == [False, False]


async def test_a_key_is_refused_where_the_record_says_another_kind(suite: Suite, world: World) -> None:
    """Of the prefix and the record neither is believed alone."""
    made = await publishable(world.test)
    secret = await world.test.api_keys.create(scopes=["licenses:validate"])
    async with suite.admin() as conn:
        for key, kind in ((made, "SECRET"), (secret, "PUBLISHABLE")):
            await conn.execute(
                "UPDATE license.api_key SET kind = $2 WHERE api_key_id = $1", key.api_key.api_key_id, kind
            )
    assert not await let_in(suite, bearer_of(made.secret))
    assert not await let_in(suite, bearer_of(secret.secret))


async def test_a_license_key_is_a_credential_for_its_own_license(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    own, other = await shop.issue(), await shop.issue()
    key = await publishable(world.test)
    authorization = license_of(key.secret, own.key)
    who = await send_as(suite, WhoAmIRequest(), authorization)
    assert (who.kind, who.license_id, who.key_id) == (
        PrincipalKind.LICENSE_KEY,
        own.license.license_id,
        key.api_key.api_key_id,
    )
    assert (who.account_id, set(who.scopes), who.HasField("expire_time")) == (
        world.account_id,
        PUBLISHABLE_SCOPES,
        False,
    )
    for request in (ValidateLicenseRequest(), by_id(own.license.license_id), by_key(own.key), by_key(own.key.lower())):
        answer = await send_as(suite, request, authorization)
        assert (code_of(answer), answer.license_id) == ("VALID", own.license.license_id)
    for request in (by_id(other.license.license_id), by_id("lic_none"), by_key(other.key), by_key("NOPE-0000")):
        error = await refused_as(suite, request, authorization)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
        assert dict(error.info.metadata) == {"caller": "LICENSE_KEY"}
        assert "NOPE" not in error.message


async def test_the_client_sends_the_license_key(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue(key="mine:with:colons")
    key = (await publishable(world.test)).secret
    async with shipped(suite, key, " Mine:With:Colons ") as app:
        assert (await app.whoami()).license_id == made.license.license_id
        assert (await app.validate()).valid
        assert (await app.validate(key="mine:with:colons")).license_id == made.license.license_id


VERDICTS = {
    "active": "VALID",
    "suspended": "SUSPENDED",
    "expired": "EXPIRED",
    "revoked": "REVOKED",
    "banned": "BANNED",
}


@pytest.mark.parametrize("status", VERDICTS)
async def test_a_license_in_any_state_is_told_its_verdict(suite: Suite, world: World, status: str) -> None:
    made = await (await open_shop(world.test)).issue_in(status)
    async with shipped(suite, (await publishable(world.test)).secret, made.key) as app:
        assert (await app.validate()).code == VERDICTS[status]


async def test_a_banned_customers_license_is_told_so(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue(customer_email="ada@example.com")
    await world.test.customers.ban(made.license.customer_id)
    async with shipped(suite, (await publishable(world.test)).secret, made.key) as app:
        assert (await app.validate()).code == "BANNED"


@pytest.mark.parametrize("authentication", ["LICENSE", "MIXED", "TOKEN", "NONE"])
async def test_the_policy_says_whether_a_license_key_is_a_credential(
    suite: Suite, world: World, authentication: str
) -> None:
    shop = await open_shop(world.test, authentication=authentication)
    made = await shop.issue()
    key = (await publishable(world.test)).secret
    assert code_of(await send_as(suite, by_key(made.key), bearer_of(key))) == "VALID", "it is a proof all the same"
    authorization = license_of(key, made.key)
    if authentication in {"LICENSE", "MIXED"}:
        assert code_of(await send_as(suite, ValidateLicenseRequest(), authorization)) == "VALID"
        return
    for request in (ValidateLicenseRequest(), WhoAmIRequest(), ListLicensesRequest()):
        error = await refused_as(suite, request, authorization)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
        assert authentication in error.message
    await world.test.policies.update(shop.policy.policy_id, authentication="LICENSE")
    assert await let_in(suite, authorization)


async def test_a_verdict_holds_no_longer_than_the_key_that_asked(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    key = (await publishable(world.test)).secret
    done = await world.test.licenses.rotate_key(made.license.license_id, overlap=timedelta(hours=1))
    for request in (ValidateLicenseRequest(), by_id(made.license.license_id), by_key(made.key)):
        answer = await send_as(suite, request, license_of(key, made.key))
        assert answer.decision.valid_until == done.old_keys_end_time


async def test_a_license_key_that_has_ended_lets_nobody_in(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    rotated, deleted = await shop.issue(), await shop.issue()
    key = (await publishable(world.test)).secret
    new = await world.test.licenses.rotate_key(rotated.license.license_id, overlap=timedelta(hours=1))
    who = await send_as(suite, WhoAmIRequest(), license_of(key, rotated.key))
    assert who.expire_time == new.old_keys_end_time, "it is told when it ends"
    newest = await world.test.licenses.rotate_key(rotated.license.license_id)
    await world.test.licenses.delete(deleted.license.license_id)
    for license_key, good in ((rotated.key, False), (new.key, False), (newest.key, True), (deleted.key, False)):
        assert await let_in(suite, license_of(key, license_key)) == good


async def test_malformed_license_credentials_are_refused_alike(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    key = (await publishable(world.test)).secret
    messages: set[str] = set()
    for authorization in (
        "License",
        "License ",
        f"License {key}",
        f"License {key}:",
        f"License :{made.key}",
        f"License {made.key}",
        f"License {made.key}:{key}",
        f"License {key}:{made.key}x",
        f"License {key} {made.key}",
        f"License {key[:-1]}:{made.key}",
        f"License {key}:{'A' * 256}",
        license_of(world.test_key, made.key),
        license_of(suite.operator_key, made.key),
        license_of(api_keys.generate(KeyPrefix.PUBLISHABLE_TEST), made.key),
        license_of((await publishable(world.live)).secret, made.key),
        f"Bearer {key}:{made.key}",
        f"Bearer {made.key}",
        bearer_of(api_keys.generate(KeyPrefix.PUBLISHABLE_TEST)),
        bearer_of(key.replace("pk_test_", "pk_live_")),
        bearer_of(key.replace("pk_test_", "sk_test_")),
    ):
        error = await refused_as(suite, WhoAmIRequest(), authorization)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID"), authorization
        messages.add(error.message)
    assert len(messages) == 1


async def test_a_license_key_checks_its_own_license_in(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, require_check_in=True, check_in_interval="DAY")
    own, other = await shop.issue(metadata={"deal": 7}), await shop.issue()
    request_id = uuid()
    vendors = await world.test.licenses.check_in(own.license.license_id, request_id=request_id)
    assert vendors.license.HasField("metadata")
    authorization = license_of((await publishable(world.test)).secret, own.key)
    request = CheckInLicenseRequest(license_id=own.license.license_id, request_id=request_id)
    done = await send_as(suite, request, authorization)
    assert done.license.check_in_due_time.ToDatetime() > vendors.license.check_in_due_time.ToDatetime()
    assert not done.license.HasField("metadata"), "the vendor's stored answer is not this caller's"
    narrow = license_of((await publishable(world.test, scopes=["licenses:validate"])).secret, own.key)
    async with unchanged(suite, world):
        for license_id in (other.license.license_id, "lic_none"):
            error = await refused_as(suite, CheckInLicenseRequest(license_id=license_id), authorization)
            assert (error.reason, dict(error.info.metadata)) == ("CALLER_NOT_ALLOWED", {"caller": "LICENSE_KEY"})
        error = await refused_as(suite, CheckInLicenseRequest(license_id=own.license.license_id), narrow)
        assert dict(error.info.metadata) == {"scope": "licenses:checkin"}


@pytest.mark.parametrize("kind", list(Caller))
def test_batches_of_shipped_applications_are_small(kind: Caller) -> None:
    caller = Principal(kind, "acc", Mode.TEST, "key", frozenset(), None)
    refuse_large_batch(caller, MAX_PUBLISHABLE_BATCH)
    if kind not in {Caller.PUBLISHABLE_KEY, Caller.LICENSE_KEY}:
        refuse_large_batch(caller, 1000)
        return
    with pytest.raises(DomainError, match="at most 10") as caught:
        refuse_large_batch(caller, MAX_PUBLISHABLE_BATCH + 1)
    assert caught.value.reason.value == "CALLER_NOT_ALLOWED"
