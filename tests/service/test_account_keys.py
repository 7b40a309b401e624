"""API keys: no wider than who made them, shown once, and refused from the moment they end."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from lictor import AlreadyExists, FailedPrecondition, InvalidArgument, LictorError, NotFound, PermissionDenied
from lictor import Unauthenticated as Refused
from lictor.account.v1.account_service_pb2 import (
    ApiKey,
    ApiKeyStatus,
    CreateApiKeyRequest,
    RotateApiKeyRequest,
    WhoAmIRequest,
)
from lictor.common.v1.common_pb2 import Mode

from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.tenancy import ACCOUNT_SCOPES
from tests.helpers.builders import (
    ago,
    ahead,
    assert_same,
    at,
    events,
    key_with,
    open_shop,
    refused,
    refused_by,
    rows,
    send,
    shift,
    table,
    unchanged,
    uuid,
)
from tests.helpers.echo import refusal
from tests.helpers.suite import Suite, World

LIFE = table(
    """
              rotate    revoke
    active    rotating  revoked
    rotating  -         revoked
    expired   -         revoked
    revoked   -         -
    """
)


def status_of(key: ApiKey) -> str:
    return ApiKeyStatus.Status.Name(key.status)


async def works(suite: Suite, key: str) -> bool:
    """Whether the key is let in; a refusal says nothing but that."""
    try:
        await send(suite, WhoAmIRequest(), key)
    except grpc.aio.AioRpcError as error:
        assert refusal(error).reason == "CREDENTIALS_INVALID"
        return False
    return True


async def expire(suite: Suite, api_key_id: str, moment: datetime | None = None) -> None:
    await shift(suite, "license.api_key", "api_key_id", api_key_id, expires_at=moment or ago(seconds=1))


async def denied(call: Awaitable[Any]) -> PermissionDenied:
    with pytest.raises(PermissionDenied) as caught:
        await call
    assert caught.value.reason == "CALLER_NOT_ALLOWED"
    return caught.value


async def test_a_key_does_what_it_was_made_for(suite: Suite, world: World) -> None:
    until = ahead(days=1)
    made = await world.test.api_keys.create(
        scopes=["licenses:read", "keys:read", "licenses:read"], display_name="CI", external_id="ci", expire_time=until
    )
    assert made.secret.startswith("sk_test_")
    record = made.api_key
    assert (list(record.scopes), record.mode, record.hint) == (
        ["keys:read", "licenses:read"],
        Mode.TEST,
        made.secret[-4:],
    )
    assert (record.display_name, status_of(record), record.expire_time, record.revision) == (
        "CI",
        "active",
        at(until),
        1,
    )
    async with suite.client(made.secret) as client:
        who = await client.whoami()
        assert await client.api_keys.get(record.api_key_id) == record == await client.api_keys.get(external_id="ci")
    assert (who.account_id, who.mode, who.key_id) == (world.account_id, Mode.TEST, record.api_key_id)
    assert (list(who.scopes), who.expire_time) == (["keys:read", "licenses:read"], at(until))


async def test_the_key_itself_is_nowhere_but_in_the_answer(suite: Suite, world: World) -> None:
    made = await world.test.api_keys.create(scopes=["keys:read"], request_id=uuid())
    stored = str(await rows(suite, world.account_id))
    assert made.secret not in stored
    assert made.secret.encode().hex() not in stored
    read = await world.test.api_keys.get(made.api_key.api_key_id)
    listed = [found async for found in world.test.api_keys.list()]
    assert made.secret not in str(read) + str(listed)


async def test_a_retry_shows_the_same_key_and_makes_none(suite: Suite, world: World) -> None:
    request_id = uuid()
    first = await world.test.api_keys.create(scopes=["keys:read"], request_id=request_id)
    async with unchanged(suite, world):
        assert_same(await world.test.api_keys.create(scopes=["keys:read"], request_id=request_id), first)
    rotation = uuid()
    rotated = await world.test.api_keys.rotate(first.api_key.api_key_id, request_id=rotation)
    async with unchanged(suite, world):
        assert_same(await world.test.api_keys.rotate(first.api_key.api_key_id, request_id=rotation), rotated)


async def test_a_key_makes_no_wider_key(suite: Suite, world: World) -> None:
    maker = await key_with(world.test, "keys:write", "licenses:read")
    async with suite.client(maker) as client:
        assert (await client.api_keys.create(scopes=["licenses:read"])).secret
        async with unchanged(suite, world):
            error = await denied(client.api_keys.create(scopes=["licenses:read", "licenses:write", "products:read"]))
            assert error.metadata == {"scope": "licenses:write"}


async def test_a_key_rotates_no_wider_key(suite: Suite, world: World) -> None:
    wide = await world.test.api_keys.create(scopes=["keys:write", "licenses:write"])
    async with suite.client(await key_with(world.test, "keys:write")) as client:
        async with unchanged(suite, world):
            error = await denied(client.api_keys.rotate(wide.api_key.api_key_id))
        assert error.metadata == {"scope": "licenses:write"}
    assert await works(suite, wide.secret)


@pytest.mark.parametrize(
    "scope", ["licenses", "licenses:*", "*", "", "LICENSES:READ", "accounts:read", "accounts:write"]
)
async def test_an_unknown_scope_is_refused_and_operators_scopes_are_unknown_here(
    suite: Suite, world: World, scope: str
) -> None:
    async with unchanged(suite, world):
        error = await refused(suite, CreateApiKeyRequest(scopes=["keys:read", scope]), world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("scopes[1]", "SCOPE_UNKNOWN")])


async def test_a_key_without_scopes_is_refused(suite: Suite, world: World) -> None:
    error = await refused(suite, CreateApiKeyRequest(), world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("scopes", "REQUIRED")])


async def test_a_key_cannot_expire_before_it_is_made(suite: Suite, world: World) -> None:
    async with unchanged(suite, world):
        with pytest.raises(InvalidArgument) as caught:
            await world.test.api_keys.create(scopes=["keys:read"], expire_time=ago(seconds=1))
    assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "MUST_BE_FUTURE")]


async def test_an_expired_key_is_refused(suite: Suite, world: World) -> None:
    made = await world.test.api_keys.create(scopes=["keys:read"], expire_time=ahead(hours=1))
    assert await works(suite, made.secret)
    await expire(suite, made.api_key.api_key_id)
    assert not await works(suite, made.secret)
    assert status_of(await world.test.api_keys.get(made.api_key.api_key_id)) == "expired"


async def test_external_ids_are_unique(suite: Suite, world: World) -> None:
    await world.test.api_keys.create(scopes=["keys:read"], external_id="ci")
    await world.live.api_keys.create(scopes=["keys:read"], external_id="ci")
    async with unchanged(suite, world):
        with pytest.raises(AlreadyExists) as caught:
            await world.test.api_keys.create(scopes=["keys:read"], external_id="ci")
    assert (caught.value.reason, caught.value.metadata) == ("EXTERNAL_ID_TAKEN", {"field": "external_id"})


async def test_a_rotated_key_works_until_its_overlap_is_over(suite: Suite, world: World) -> None:
    old = await world.test.api_keys.create(scopes=["keys:read", "licenses:read"], display_name="CI")
    new = await world.test.api_keys.rotate(old.api_key.api_key_id, overlap=timedelta(hours=1))
    assert (status_of(new.replaced), new.replaced.replaced_by_id) == ("rotating", new.api_key.api_key_id)
    assert (list(new.api_key.scopes), new.api_key.display_name) == (list(old.api_key.scopes), "CI")
    assert not new.api_key.HasField("expire_time")
    left = new.replaced.expire_time.ToDatetime() - new.api_key.create_time.ToDatetime()
    assert left == timedelta(hours=1)
    assert (await works(suite, old.secret), await works(suite, new.secret)) == (True, True)
    await expire(suite, old.api_key.api_key_id)
    assert (await works(suite, old.secret), await works(suite, new.secret)) == (False, True)


async def test_a_key_rotated_without_overlap_ends_at_once(suite: Suite, world: World) -> None:
    old = await world.test.api_keys.create(scopes=["keys:read"])
    new = await world.test.api_keys.rotate(old.api_key.api_key_id, overlap=timedelta(0))
    assert status_of(new.replaced) == "expired"
    assert (await works(suite, old.secret), await works(suite, new.secret)) == (False, True)


async def test_an_overlap_is_24_hours_unless_it_is_given_and_never_lengthens_a_life(suite: Suite, world: World) -> None:
    plain = await world.test.api_keys.create(scopes=["keys:read"])
    rotated = await world.test.api_keys.rotate(plain.api_key.api_key_id)
    assert rotated.replaced.expire_time.ToDatetime() - rotated.api_key.create_time.ToDatetime() == timedelta(days=1)
    until = ahead(hours=1)
    short = await world.test.api_keys.create(scopes=["keys:read"], expire_time=until)
    again = await world.test.api_keys.rotate(short.api_key.api_key_id, overlap=timedelta(days=30))
    assert (again.replaced.expire_time, again.api_key.expire_time) == (at(until), at(until))


@pytest.mark.parametrize("seconds", [-1, 30 * 86400 + 1])
async def test_an_overlap_has_bounds(suite: Suite, world: World, seconds: int) -> None:
    made = await world.test.api_keys.create(scopes=["keys:read"])
    request = RotateApiKeyRequest(api_key_id=made.api_key.api_key_id)
    request.overlap.seconds = seconds
    async with unchanged(suite, world):
        error = await refused(suite, request, world.test_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", [("overlap", "DURATION_OUT_OF_RANGE")])


async def test_a_revoked_key_is_refused_when_the_call_returns(suite: Suite, world: World) -> None:
    made = await world.test.api_keys.create(scopes=["keys:write", "keys:read"])
    async with suite.client(made.secret) as client:
        ended = await client.api_keys.revoke(made.api_key.api_key_id, reason="leaked")
        assert status_of(ended.api_key) == "revoked"
        with pytest.raises(Refused):
            await client.api_keys.get(made.api_key.api_key_id)
    told = await events(suite, made.api_key.api_key_id)
    assert [(event["type"], event["reason"]) for event in told] == [
        ("api_key.created", ""),
        ("api_key.revoked", "leaked"),
    ]
    assert made.secret[-4:] not in str([event["data"] for event in told])


@pytest.mark.parametrize(("status", "action"), sorted(LIFE))
async def test_every_pair(suite: Suite, world: World, status: str, action: str) -> None:
    keys = world.test.api_keys
    key_id = (await keys.create(scopes=["keys:read"])).api_key.api_key_id
    match status:
        case "rotating":
            await keys.rotate(key_id)
        case "expired":
            await expire(suite, key_id)
        case "revoked":
            await keys.revoke(key_id)
        case _:
            pass
    assert status_of(await keys.get(key_id)) == status
    act = keys.rotate if action == "rotate" else keys.revoke
    if LIFE[status, action] == "-":
        async with unchanged(suite, world):
            with pytest.raises(FailedPrecondition) as caught:
                await act(key_id)
        assert caught.value.reason == "STATE_TRANSITION_INVALID"
        assert caught.value.metadata == {"from": status, "action": action}
    else:
        await act(key_id)
        assert status_of(await keys.get(key_id)) == LIFE[status, action]


async def test_keys_of_the_other_mode_are_not_there(suite: Suite, world: World) -> None:
    live = (await world.live.api_keys.create(scopes=["keys:read"])).api_key
    async with unchanged(suite, world):
        for attempt in (
            world.test.api_keys.get(live.api_key_id),
            world.test.api_keys.rotate(live.api_key_id),
            world.test.api_keys.revoke(live.api_key_id),
        ):
            with pytest.raises(NotFound) as caught:
                await attempt
            assert caught.value.reason == "API_KEY_NOT_FOUND"
    assert live.api_key_id not in [key.api_key_id async for key in world.test.api_keys.list()]


def harmed(key: str) -> dict[str, list[str]]:
    """What may be sent in place of `Bearer <key>`."""
    other = "a" if key[20] != "a" else "b"
    return {
        "nothing": [],
        "empty": [""],
        "no key": ["Bearer "],
        "no scheme": [key],
        "other scheme": [f"Basic {key}"],
        "cut": [f"Bearer {key[:-1]}"],
        "one character changed": [f"Bearer {key[:20]}{other}{key[21:]}"],
        "longer": [f"Bearer {key}x"],
        "unknown but well-formed": [f"Bearer {api_keys.generate(KeyPrefix.SECRET_TEST)}"],
        "unknown operator": [f"Bearer {api_keys.generate(KeyPrefix.OPERATOR)}"],
        "of the other mode": [f"Bearer {key.replace('sk_test_', 'sk_live_')}"],
        "two at once": [f"Bearer {key}", f"Bearer {key}"],
    }


async def test_malformed_and_unknown_credentials_are_refused_alike(suite: Suite, world: World) -> None:
    for harm, values in harmed(world.test_key).items():
        metadata = [("authorization", value) for value in values]
        error = await refused_by(suite.accounts.WhoAmI(WhoAmIRequest(), metadata=metadata))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID"), harm
        assert world.test_key[8:] not in error.message


async def test_the_scheme_may_be_written_in_any_case(suite: Suite, world: World) -> None:
    metadata = (("authorization", f"bearer {world.test_key}"),)
    assert (await suite.accounts.WhoAmI(WhoAmIRequest(), metadata=metadata)).account_id == world.account_id


async def test_a_scope_is_needed_for_every_deed_with_keys(suite: Suite, world: World) -> None:
    async with suite.client(await key_with(world.test, *sorted(ACCOUNT_SCOPES - {"keys:write"}))) as client:
        assert (await denied(client.api_keys.create(scopes=["keys:read"]))).metadata == {"scope": "keys:write"}
    async with suite.client(await key_with(world.test, *sorted(ACCOUNT_SCOPES - {"keys:read"}))) as client:
        assert (await denied(client.api_keys.page())).metadata == {"scope": "keys:read"}


async def test_a_key_that_ends_leaves_what_it_made(suite: Suite, world: World) -> None:
    maker = await world.test.api_keys.create(scopes=sorted(ACCOUNT_SCOPES))
    async with suite.client(maker.secret) as client:
        made = await (await open_shop(client)).issue()
    await world.test.api_keys.revoke(maker.api_key.api_key_id)
    assert (await world.test.validate(key=made.key)).valid
    with pytest.raises(LictorError):
        async with suite.client(maker.secret) as client:
            await client.validate(key=made.key)
