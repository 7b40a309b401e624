"""From when on a change holds everywhere: the lease after its commit, and where a policy lets validations go on without the
record, so much later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from lictor.account.v1 import account_service_pb2 as accounts
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import license_service_pb2 as licenses

from tests.helpers.builders import Shop, open_shop, send
from tests.helpers.suite import Suite, World

HOUR = timedelta(hours=1)
SOON = timedelta(seconds=1)
"""More than what a call and a lease of 10 ms take."""


async def later(suite: Suite, request: Any, key: str) -> timedelta:
    """How long after its answer a call's effect holds everywhere."""
    answer = await send(suite, request, key)
    return answer.effective_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)


def held(span: timedelta, stale: timedelta) -> bool:
    return stale - SOON < span < stale + SOON


async def policy_with(shop: Shop, span: timedelta) -> str:
    made = await shop.client.policies.create(
        product_id=shop.product.product_id, display_name="x", max_machines=1, stale_ok_for=span
    )
    return made.policy.policy_id


def updated(policy_id: str, span: timedelta) -> catalog.UpdatePolicyRequest:
    stale_ok_for = Duration()
    stale_ok_for.FromTimedelta(span)
    return catalog.UpdatePolicyRequest(policy_id=policy_id, stale_ok_for=stale_ok_for)


async def test_it_counts_what_any_policy_of_the_account_allows(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    issued = [(await shop.issue()).license.license_id for _ in range(3)]
    assert held(await later(suite, licenses.SuspendLicenseRequest(license_id=issued[0]), world.test_key), timedelta(0))
    await policy_with(shop, 2 * HOUR)
    await policy_with(shop, HOUR)
    suspend = licenses.SuspendLicenseRequest(license_id=issued[1])
    assert held(await later(suite, suspend, world.test_key), 2 * HOUR)
    at_once = licenses.SuspendLicenseRequest(license_id=issued[2], return_before_effective=True)
    assert held(await later(suite, at_once, world.test_key), 2 * HOUR)
    reinstate = licenses.ReinstateLicenseRequest(license_id=issued[0])
    assert held(await later(suite, reinstate, world.test_key), timedelta(0)), "it takes nothing away"
    key = await world.live.api_keys.create(scopes=["keys:read"])
    revoke = accounts.RevokeApiKeyRequest(api_key_id=key.api_key.api_key_id)
    assert held(await later(suite, revoke, world.live_key), 2 * HOUR), "of whichever mode"
    async with suite.world() as other:
        key = await other.test.api_keys.create(scopes=["keys:read"])
        revoke = accounts.RevokeApiKeyRequest(api_key_id=key.api_key.api_key_id)
        assert held(await later(suite, revoke, other.test_key), timedelta(0)), "of no other account"
        suspend_account = accounts.SuspendAccountRequest(account_id=other.account_id)
        assert held(await later(suite, suspend_account, suite.operator_key), timedelta(0))
    suspend_account = accounts.SuspendAccountRequest(account_id=world.account_id)
    assert held(await later(suite, suspend_account, suite.operator_key), 2 * HOUR)


async def test_a_span_that_was_lowered_or_deleted_counts_until_it_is_over(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    issued = [(await shop.issue()).license.license_id for _ in range(3)]
    policy_id = await policy_with(shop, HOUR)
    assert held(await later(suite, updated(policy_id, timedelta(0)), world.test_key), HOUR)
    assert held(await later(suite, licenses.SuspendLicenseRequest(license_id=issued[0]), world.test_key), HOUR)
    longer = await policy_with(shop, 2 * HOUR)
    assert held(await later(suite, catalog.DeletePolicyRequest(policy_id=longer), world.test_key), 2 * HOUR)
    assert held(await later(suite, licenses.SuspendLicenseRequest(license_id=issued[1]), world.test_key), 2 * HOUR)
    async with suite.admin() as admin:
        kept = await admin.fetch(
            "SELECT stale_ok_for, ends_at - now() AS left FROM license.stale_span WHERE account_id = $1 ORDER BY 1",
            world.account_id,
        )
        assert [row["stale_ok_for"] for row in kept] == [HOUR, 2 * HOUR]
        for row in kept:
            assert row["stale_ok_for"] < row["left"] < row["stale_ok_for"] + timedelta(minutes=1)
        await admin.execute(
            "UPDATE license.stale_span SET ends_at = now() - interval '1 s' WHERE account_id = $1", world.account_id
        )
    assert held(await later(suite, licenses.SuspendLicenseRequest(license_id=issued[2]), world.test_key), timedelta(0))
    await later(suite, updated(await policy_with(shop, HOUR), timedelta(minutes=1)), world.test_key)
    async with suite.admin() as admin:
        spans = "SELECT array_agg(stale_ok_for) FROM license.stale_span WHERE account_id = $1"
        assert await admin.fetchval(spans, world.account_id) == [HOUR], "what is over goes"


async def test_a_span_that_is_raised_keeps_nothing(suite: Suite, world: World) -> None:
    policy_id = await policy_with(await open_shop(world.test), HOUR)
    assert held(await later(suite, updated(policy_id, 2 * HOUR), world.test_key), 2 * HOUR)
    async with suite.admin() as admin:
        spans = "SELECT count(*) FROM license.stale_span WHERE account_id = $1"
        assert await admin.fetchval(spans, world.account_id) == 0
