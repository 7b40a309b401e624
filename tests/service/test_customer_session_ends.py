"""How customer sessions end: at once, for calls in flight too, and what is left of them is swept."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message import Message
from lictor import FailedPrecondition
from lictor.license.v1.license_service_pb2 import (
    RevealLicenseKeyRequest,
    RotateLicenseKeyRequest,
)

from services.license.sweeper import sweep_once
from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from tests.helpers.builders import (
    ago,
    blocked_backend,
    events,
    held,
    rows,
    shift,
)
from tests.helpers.credentials import (
    bearer_of,
    let_in,
    open_portal,
    outcome_as,
    send_as,
)
from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite, World


async def test_revoking_ends_all_sessions_of_one_customer(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    more = [(await world.test.customers.create_session(portal.customer_id)).token for _ in range(2)]
    eves = await portal.shop.issue(customer_email="eve@example.com")
    eve = (await world.test.customers.create_session(eves.license.customer_id)).token
    assert (await world.test.customers.revoke_sessions(portal.customer_id)).ended_count == 3
    for token in (portal.token, *more):
        assert not await let_in(suite, bearer_of(token))
    assert await let_in(suite, bearer_of(eve))
    before = await events(suite, portal.customer_id)
    assert (await world.test.customers.revoke_sessions(portal.customer_id)).ended_count == 0
    assert len(await events(suite, portal.customer_id)) == len(before), "nothing happened"
    new = await world.test.customers.create_session(portal.customer_id)
    assert await let_in(suite, bearer_of(new.token))


async def test_a_session_is_over_when_its_time_is(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    await shift(suite, "license.customer_session", "customer_session_id", portal.session_id, expires_at=ago(seconds=1))
    assert not await let_in(suite, bearer_of(portal.token))
    assert (await world.test.customers.revoke_sessions(portal.customer_id)).ended_count == 0


async def test_a_banned_customers_sessions_are_refused_when_the_ban_returns(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    for _ in range(3):
        assert await let_in(suite, bearer_of(portal.token))
        await world.test.customers.ban(portal.customer_id)
        assert not await let_in(suite, bearer_of(portal.token))
        await world.test.customers.unban(portal.customer_id)
        await lease_passes()
    await world.test.customers.ban(portal.customer_id)
    await world.test.customers.revoke_sessions(portal.customer_id)
    await world.test.customers.unban(portal.customer_id)
    assert not await let_in(suite, bearer_of(portal.token))


async def test_a_deleted_customers_sessions_go_with_it(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    await world.test.licenses.delete(portal.license_id)
    async with suite.admin() as conn:
        assert await conn.execute("DELETE FROM license.customer WHERE customer_id = $1", portal.customer_id)
    assert not await let_in(suite, bearer_of(portal.token))


@pytest.mark.parametrize("end", ["ban", "revoke"])
@pytest.mark.parametrize("kind", [RevealLicenseKeyRequest, RotateLicenseKeyRequest])
async def test_a_call_in_flight_writes_nothing_after_the_end_of_its_session(
    suite: Suite, world: World, kind: type[Message], end: str
) -> None:
    """The call has been let in, and waits behind the one that ends the session."""
    portal = await open_portal(suite, world)
    request = kind(license_id=portal.license_id)
    before = await events(suite, portal.license_id)
    statement = {
        "ban": "UPDATE license.customer SET banned_at = now() WHERE customer_id = $1",
        "revoke": "DELETE FROM license.customer_session WHERE customer_id = $1",
    }[end]
    async with suite.admin() as conn:
        async with conn.transaction():
            await conn.execute("SELECT 1 FROM license.customer WHERE customer_id = $1 FOR UPDATE", portal.customer_id)
            calling = asyncio.create_task(outcome_as(suite, request, bearer_of(portal.token)))
            await blocked_backend(conn)
            await conn.execute(statement, portal.customer_id)
        assert await calling == "CREDENTIALS_INVALID"
    assert await events(suite, portal.license_id) == before
    assert (await world.test.licenses.reveal_key(portal.license_id)).key == portal.issued.key


@pytest.mark.parametrize("end", ["ban", "revoke_sessions"])
async def test_the_end_of_a_session_waits_for_what_the_session_is_writing(suite: Suite, world: World, end: str) -> None:
    """Nothing that a session does is committed after the call that ends it has returned."""
    portal = await open_portal(suite, world)
    lock = "SELECT 1 FROM license.license WHERE license_id = $1 FOR UPDATE"
    async with held(suite, lock, portal.license_id) as conn:
        request = RotateLicenseKeyRequest(license_id=portal.license_id)
        calling = asyncio.create_task(send_as(suite, request, bearer_of(portal.token)))
        await blocked_backend(conn)
        ending = asyncio.create_task(getattr(world.test.customers, end)(portal.customer_id))
        assert await asyncio.wait({ending}, timeout=0.3) == (set(), {ending})
    await ending
    told = [event["type"] for event in await events(suite, portal.license_id)]
    assert told[-1] == "license.key.rotated", "it was not committed before the end returned"
    assert (await calling).key
    assert not await let_in(suite, bearer_of(portal.token))


async def test_a_session_made_beside_a_ban_is_refused_or_dead(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    for _ in range(5):
        ban = asyncio.create_task(world.test.customers.ban(portal.customer_id))
        made = await asyncio.gather(
            *(world.test.customers.create_session(portal.customer_id) for _ in range(4)), return_exceptions=True
        )
        await ban
        for one in made:
            if isinstance(one, BaseException):
                assert isinstance(one, FailedPrecondition)
                assert one.reason == "CUSTOMER_BANNED"
            else:
                assert not await let_in(suite, bearer_of(one.token))
        await world.test.customers.unban(portal.customer_id)


async def test_damaged_and_relabelled_tokens_are_refused(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    token = portal.token
    for authorization in (
        bearer_of(token[:-1]),
        bearer_of(token.replace("cs_test_", "cs_live_")),
        bearer_of(api_keys.generate(KeyPrefix.SESSION_TEST)),
        f"License {token}:{portal.issued.key}",
        f"Basic {token}",
    ):
        assert not await let_in(suite, authorization)
    assert await let_in(suite, bearer_of(token))


async def test_the_sweeper_deletes_sessions_that_are_over(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    over = await world.test.customers.create_session(portal.customer_id)
    over_id = over.customer_session.customer_session_id
    await shift(suite, "license.customer_session", "customer_session_id", over_id, expires_at=ago(seconds=5))
    target = PostgresTarget(suite.settings.postgres_dsn.get_secret_value())
    async with Database.opened(target, Role.LICENSE_WORKER, size=1) as worker:
        assert await sweep_once(worker) >= 1
        assert await sweep_once(worker) == 0
    kept = str((await rows(suite, world.account_id))["license.customer_session"])
    assert portal.session_id in kept
    assert over_id not in kept
    assert await let_in(suite, bearer_of(portal.token))
