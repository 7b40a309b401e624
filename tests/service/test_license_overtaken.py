"""A validation that would count, overtaken by a change of its license: it is decided anew, and leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.builders import blocked_backend, events, open_shop
from tests.helpers.suite import Suite, World

_TIER = "(SELECT t.tier_id FROM license.tier AS t WHERE t.account_id = l.account_id AND t.slug = 'free')"
_LOCKED = "WITH locked AS MATERIALIZED (SELECT * FROM license.license WHERE license_id = $1 FOR UPDATE)"
_ITS_POLICY = "FROM locked WHERE p.account_id = locked.account_id AND p.policy_id = locked.policy_id"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE license.license SET status = 'suspended' WHERE license_id = $1", "SUSPENDED"),
        (f"UPDATE license.license AS l SET tier_id = {_TIER} WHERE license_id = $1", "TIER_SCOPE_MISMATCH"),
        (
            f"{_LOCKED} INSERT INTO license.license_usage (account_id, mode, license_id, uses) "
            "SELECT account_id, mode, license_id, 5 FROM locked",
            "USES_EXCEEDED",
        ),
        (f"{_LOCKED} UPDATE license.policy AS p SET require_fingerprint = true {_ITS_POLICY}", "NO_MACHINE"),
        (
            f"{_LOCKED} UPDATE license.policy AS p SET require_machine_scope = true {_ITS_POLICY}",
            "MACHINE_SCOPE_REQUIRED",
        ),
    ],
)
async def test_an_overtaken_validation_changes_nothing(suite: Suite, world: World, change: str, code: str) -> None:
    shop = await open_shop(
        world.test, expiration_basis="FROM_FIRST_VALIDATION", max_uses=5, uses_counted_by="VALIDATION"
    )
    tiers = [
        (await world.test.tiers.create(product_id=shop.product.product_id, slug=slug, display_name=slug)).tier.tier_id
        for slug in ("free", "pro")
    ]
    made = await shop.issue(tier_id=tiers[1])
    async with suite.admin() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute(change, made.license.license_id)
        validating = asyncio.create_task(world.test.validate(key=made.key, required_tier="pro"))
        await blocked_backend(conn)
        await transaction.commit()
    assert (await validating).code == code
    after = await world.test.licenses.get(made.license.license_id)
    assert (after.expiry_anchored, after.revision) == (False, 1)
    assert [event["type"] for event in await events(suite, made.license.license_id)] == ["license.created"]
