"""Accounts: operators make, stop and start them, and do nothing inside them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from google.protobuf.descriptor import MethodDescriptor
from lictor import AlreadyExists, AsyncLictor, FailedPrecondition, NotFound, Unauthenticated
from lictor.account.v1.account_service_pb2 import AccountStatus, CreateAccountRequest, PrincipalKind
from lictor.common.v1.common_pb2 import Mode

from shared.tenancy import ACCOUNT_SCOPES, OPERATOR_SCOPES
from tests.helpers.builders import (
    METHODS,
    assert_same,
    events,
    open_shop,
    probe,
    refused,
    refused_by,
    request_class,
    rows,
    rules_of,
    send,
    send_raw,
    table,
    unchanged,
    uuid,
)
from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite, World

LIFE = table(
    """
               suspend    reinstate
    active     suspended  -
    suspended  -          active
    """
)


@pytest_asyncio.fixture(loop_scope="session")
async def operator(suite: Suite) -> AsyncGenerator[AsyncLictor]:
    async with suite.client(suite.operator_key) as client:
        yield client


async def test_an_account_comes_with_a_key_for_all_in_each_mode(suite: Suite, operator: AsyncLictor) -> None:
    name = uuid()
    made = await operator.accounts.create(display_name="Ada & Co", external_id=name)
    assert await operator.accounts.get(made.account.account_id) == made.account
    assert await operator.accounts.get(external_id=name) == made.account
    assert (made.account.display_name, made.account.status, made.account.revision) == (
        "Ada & Co",
        AccountStatus.active,
        1,
    )
    for key, mode in ((made.test_api_key, Mode.TEST), (made.live_api_key, Mode.LIVE)):
        async with suite.client(key) as client:
            who = await client.whoami()
        assert (who.kind, who.account_id, who.mode) == (PrincipalKind.SECRET_KEY, made.account.account_id, mode)
        assert set(who.scopes) == ACCOUNT_SCOPES
    assert [event["type"] for event in await events(suite, made.account.account_id)] == ["account.created"]


async def test_an_accounts_first_keys_are_stored_nowhere(suite: Suite, operator: AsyncLictor) -> None:
    made = await operator.accounts.create(display_name="x", request_id=uuid())
    stored = str(await rows(suite, made.account.account_id, "operator"))
    for key in (made.test_api_key, made.live_api_key):
        assert key not in stored
        assert key.encode().hex() not in stored


async def test_a_retry_shows_the_same_account_and_keys(operator: AsyncLictor) -> None:
    request_id = uuid()
    first = await operator.accounts.create(display_name="x", request_id=request_id)
    assert_same(await operator.accounts.create(display_name="x", request_id=request_id), first)


async def test_an_account_needs_a_request_id_and_a_name(suite: Suite) -> None:
    error = await refused(suite, CreateAccountRequest(), suite.operator_key)
    assert (error.reason, error.violations) == (
        "FIELD_INVALID",
        [("request_id", "REQUIRED"), ("display_name", "REQUIRED")],
    )


async def test_external_ids_of_accounts_are_unique(suite: Suite, operator: AsyncLictor, world: World) -> None:
    name = uuid()
    await operator.accounts.create(display_name="x", external_id=name)
    async with unchanged(suite, world):
        with pytest.raises(AlreadyExists) as caught:
            await operator.accounts.create(display_name="y", external_id=name)
    assert (caught.value.reason, caught.value.metadata) == ("EXTERNAL_ID_TAKEN", {"field": "external_id"})


@pytest.mark.parametrize(("status", "action"), sorted(LIFE))
async def test_every_pair(suite: Suite, operator: AsyncLictor, world: World, status: str, action: str) -> None:
    accounts = operator.accounts
    if status == "suspended":
        await accounts.suspend(world.account_id)
    act = accounts.suspend if action == "suspend" else accounts.reinstate
    if LIFE[status, action] == "-":
        async with unchanged(suite, world):
            with pytest.raises(FailedPrecondition) as caught:
                await act(world.account_id)
        assert caught.value.reason == "STATE_TRANSITION_INVALID"
        assert caught.value.metadata == {"from": status, "action": action}
        return
    after = (await act(world.account_id, reason="because")).account
    assert AccountStatus.Status.Name(after.status) == LIFE[status, action]
    assert after == await accounts.get(world.account_id)
    last = (await events(suite, world.account_id))[-1]
    assert (last["type"], last["reason"]) == (
        {"suspend": "account.suspended"}.get(action, "account.reinstated"),
        "because",
    )


async def test_a_suspended_accounts_keys_are_refused_at_once_and_work_again_after(
    operator: AsyncLictor, world: World
) -> None:
    made = await (await open_shop(world.test)).issue()
    await operator.accounts.suspend(world.account_id)
    for client in (world.test, world.live):
        with pytest.raises(Unauthenticated) as caught:
            await client.whoami()
        assert caught.value.reason == "CREDENTIALS_INVALID"
    with pytest.raises(Unauthenticated):
        await world.test.validate(key=made.key)
    await operator.accounts.reinstate(world.account_id)
    await lease_passes()
    assert (await world.test.validate(key=made.key)).valid


@pytest.mark.parametrize("known", ["acc_nope", "operator", "' OR true --"])
async def test_an_unknown_account(operator: AsyncLictor, known: str) -> None:
    for attempt in (
        operator.accounts.get(known),
        operator.accounts.get(external_id=known),
        operator.accounts.suspend(known),
        operator.accounts.reinstate(known),
    ):
        with pytest.raises(NotFound) as caught:
            await attempt
        assert (caught.value.reason, caught.value.metadata) == ("ACCOUNT_NOT_FOUND", {"id": known})


async def test_who_an_operator_is(operator: AsyncLictor) -> None:
    who = await operator.whoami()
    assert (who.kind, who.account_id, who.mode) == (PrincipalKind.OPERATOR, "", Mode.KIND_UNSPECIFIED)
    assert set(who.scopes) == OPERATOR_SCOPES
    assert who.key_id.startswith("opk_")


SCOPED = [pytest.param(method, id=method.name) for method in METHODS.values() if rules_of(method).scope]


@pytest.mark.parametrize("method", SCOPED)
async def test_every_method_refuses_a_key_that_lacks_just_its_scope(
    suite: Suite, world: World, method: MethodDescriptor
) -> None:
    """Authorization comes before the fields are looked at, so an empty request will do."""
    scope = rules_of(method).scope
    empty = request_class(method)()
    if scope in OPERATOR_SCOPES:
        key = world.test_key
    else:
        assert scope in ACCOUNT_SCOPES, "a scope that no key can hold"
        others = sorted(ACCOUNT_SCOPES - {scope})
        key = (await world.test.api_keys.create(scopes=others)).secret
        only = (await world.test.api_keys.create(scopes=[scope])).secret
        await reaches(suite, method, only)
    async with unchanged(suite, world):
        error = await refused(suite, empty, key)
    assert (error.reason, dict(error.info.metadata)) == ("CALLER_NOT_ALLOWED", {"scope": scope})


NEED_A_FIELD = {"ListLicenseEvents", "ListProcesses", "ListSeats", "ListSigningKeys", "ListLicenseFiles"}
"""Lists of something that must be named."""


async def reaches(suite: Suite, method: MethodDescriptor, key: str) -> None:
    """The scope is enough: an empty request is answered, or refused for what is in it."""
    if method.name.startswith("List") and method.name not in NEED_A_FIELD:
        await send(suite, request_class(method)(), key)
    else:
        assert (await refused(suite, probe(method), key)).reason == "FIELD_INVALID"


@pytest.mark.parametrize("method", SCOPED)
async def test_an_operator_reaches_accounts_and_nothing_inside(suite: Suite, method: MethodDescriptor) -> None:
    if rules_of(method).scope in OPERATOR_SCOPES:
        await reaches(suite, method, suite.operator_key)
        return
    error = await refused_by(send_raw(suite, method, b"", suite.operator_key))
    assert (error.reason, dict(error.info.metadata)) == ("CALLER_NOT_ALLOWED", {"scope": rules_of(method).scope})


def test_only_whoami_and_what_is_for_everybody_need_no_scope() -> None:
    assert {method.name for method in METHODS.values() if not rules_of(method).scope} == {"WhoAmI", "GetJsonWebKeySet"}


def test_every_scope_is_needed_by_some_method() -> None:
    assert {rules_of(method).scope for method in METHODS.values()} - {""} == ACCOUNT_SCOPES | OPERATOR_SCOPES


async def test_a_revoked_operator_key_is_refused(suite: Suite, operator: AsyncLictor) -> None:
    who = await operator.whoami()
    async with suite.admin() as conn:
        statement = "UPDATE license.operator_key SET revoked_at = $2 WHERE operator_key_id = $1"
        now = await conn.fetchval("SELECT now()")
        try:
            await conn.execute(statement, who.key_id, now)
            await lease_passes()
            with pytest.raises(Unauthenticated):
                await operator.whoami()
        finally:
            await conn.execute(statement, who.key_id, None)
            await lease_passes()
    assert (await operator.whoami()) == who
