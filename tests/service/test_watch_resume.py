"""A stream of licenses goes on where another ended: nothing is missed, and where it cannot go on it says so."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from lictor.license.v1.license_service_pb2 import LicenseStatus
from lictor.license.v1.validation_service_pb2 import ValidationCode

from shared.crypto import root_secret
from shared.facts.stamped import STAMP, stamp_of
from shared.freshness.resume import ResumePoint, ResumeTokens
from shared.tenancy import Mode, Tenant
from tests.helpers.builders import Shop, open_shop, refused_by, shift
from tests.helpers.lease import lease_passes
from tests.helpers.serving import until
from tests.helpers.suite import Suite, World
from tests.helpers.watching import Kind, Watcher, watching

CHANGES_OF = """
    INSERT INTO record.change_log (kind, key) SELECT 'license', $1 || '/TEST/lic_' || n FROM generate_series(1, $2::int) AS n
"""


async def issued(shop: Shop) -> str:
    return (await shop.issue()).license.license_id


async def new_epoch(suite: Suite) -> None:
    """As after a crash of Postgres."""
    async with suite.admin() as conn:
        await conn.execute("UPDATE record.epoch SET epoch = gen_random_uuid()")


async def latest(conn: asyncpg.Connection) -> ResumePoint:
    """The state of the record."""
    row = await conn.fetchrow(f"SELECT {STAMP}, clock_timestamp() AS at")
    assert row is not None
    stamp = stamp_of(row)
    assert stamp is not None
    return ResumePoint(stamp, row["at"])


def tokens(suite: Suite) -> ResumeTokens:
    """Tokens as the suite makes them."""
    return ResumeTokens(root_secret.load(suite.settings.root_secret_file))


async def test_what_happened_while_nobody_listened_is_told_and_nothing_else(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    same, suspended, deleted = [await issued(shop) for _ in range(3)]
    async with watching(suite, world.test_key) as before:
        pass
    await world.test.licenses.suspend(suspended)
    await world.test.licenses.delete(deleted)
    created = await issued(shop)
    async with watching(suite, world.test_key, complete=False, resume_token=before.token, held=before.held) as after:
        await after.until_kind(Kind.BOOKMARK)
        assert set(after.told) == {("DELTA", suspended), ("DELETED", deleted), ("DELTA", created), ("BOOKMARK", "")}
        assert {one: after.code(one) for one in after.held} == {same: "VALID", suspended: "SUSPENDED", created: "VALID"}


async def test_what_time_alone_changed_while_nobody_listened_is_told(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    ending = (await shop.issue(expire_time=ends)).license.license_id
    await issued(shop)
    async with watching(suite, world.test_key) as before:
        assert before.code(ending) == "VALID"
    await until(lambda: datetime.now(UTC) > ends)
    async with watching(suite, world.test_key, complete=False, resume_token=before.token, held=before.held) as after:
        await after.until_kind(Kind.BOOKMARK)
        assert after.told == [("DELTA", ending), ("BOOKMARK", "")]
        assert after.code(ending) == "EXPIRED"


async def test_a_resumed_stream_knows_what_is_due(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    ends = datetime.now(UTC) + timedelta(seconds=3)
    ending = (await shop.issue(expire_time=ends)).license.license_id
    async with watching(suite, world.test_key) as before:
        pass
    async with watching(suite, world.test_key, complete=False, resume_token=before.token, held=before.held) as after:
        await after.until_code(ending, "EXPIRED")
        assert datetime.now(UTC) <= ends + timedelta(seconds=1)


async def test_a_policy_that_changed_while_nobody_listened_is_told_for_its_licenses(suite: Suite, world: World) -> None:
    shop, other = await open_shop(world.test), await open_shop(world.test, code="OTHER")
    ids = {await issued(shop) for _ in range(3)}
    await issued(other)
    async with watching(suite, world.test_key) as before:
        pass
    await world.test.policies.update(shop.policy.policy_id, require_user_scope=True)
    async with watching(suite, world.test_key, complete=False, resume_token=before.token, held=before.held) as after:
        await after.until_kind(Kind.BOOKMARK)
        assert {told for told in after.told if told[1]} == {("DELTA", one) for one in ids}
        assert {after.code(one) for one in ids} == {"USER_SCOPE_REQUIRED"}


async def test_nothing_is_missed_across_reconnects_while_changes_race(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    dice = random.Random(7)
    ids = [await issued(shop) for _ in range(10)]
    going = True

    async def change() -> None:
        licenses = world.test.licenses
        while going:
            one = dice.choice(ids)
            match dice.randrange(5):
                case 0:
                    ids.append(await issued(shop))
                case 1 if len(ids) > 5:
                    ids.remove(one)
                    await licenses.delete(one)
                case 2:
                    await world.test.policies.update(shop.policy.policy_id, require_user_scope=dice.random() < 0.5)
                case _:
                    active = (await licenses.get(one)).status == LicenseStatus.active
                    await (licenses.suspend(one) if active else licenses.reinstate(one))

    changing = asyncio.create_task(change())
    token, held = "", {}
    for _ in range(12):
        async with watching(suite, world.test_key, complete=not token, resume_token=token, held=held) as watcher:
            messages = dice.randrange(1, 6)
            for _ in range(messages):
                await watcher.next()
            if token:
                assert ("SNAPSHOT_BEGUN", "") not in watcher.told
            token, held = watcher.token, watcher.held
    going = False
    await changing
    async with watching(suite, world.test_key, complete=False, resume_token=token, held=held) as watcher:
        await caught_up(world, watcher)


async def caught_up(world: World, watcher: Watcher) -> None:
    """Reads until what is held is what validations say."""
    expected: dict[str, str] = {}
    async for one in world.test.licenses.list():
        expected[one.license_id] = (await world.test.validate(license_id=one.license_id)).code
    await watcher.until(lambda: {one: watcher.code(one) for one in watcher.held} == expected)


async def why(suite: Suite, world: World, token: str, **request: Any) -> str:
    async with watching(suite, world.test_key, complete=False, resume_token=token, **request) as watcher:
        found = await refused_by(watcher.refused())
    assert (found.code.name, found.reason) == ("OUT_OF_RANGE", "RESYNC_REQUIRED")
    return found.info.metadata["why"]


async def test_a_token_of_another_stream_or_none_of_ours_is_refused(suite: Suite, world: World) -> None:
    async with watching(suite, world.test_key, policy_id="pol_1", license_ids=["lic_2", "lic_1"]) as watcher:
        token = watcher.token
    same: dict[str, Any] = {"policy_id": "pol_1", "license_ids": ["lic_1", "lic_2", "lic_1"]}
    async with watching(suite, world.test_key, complete=False, resume_token=token, **same) as watcher:
        assert (await watcher.next()).kind == Kind.BOOKMARK
    others: tuple[dict[str, Any], ...] = (
        {}, {**same, "policy_id": "pol_2"}, {**same, "product_id": "prod_1"}, {**same, "license_ids": ["lic_1"]},
    )  # fmt: skip
    for other in others:
        assert await why(suite, world, token, **other) == "FILTER"
    for bad in ("x", "x" * 2048, token[:-3], token[:20] + "AAAA" + token[24:], "é"):
        assert await why(suite, world, bad, **same) == "UNREADABLE"
    async with suite.world() as stranger:
        assert await why(suite, stranger, token, **same) == "FILTER"


async def test_a_token_that_is_older_than_the_log_is_refused(suite: Suite, world: World) -> None:
    async with suite.admin() as conn:
        point = await latest(conn)
    filters = "licenses|||"
    tenant = Tenant(world.account_id, Mode.TEST)
    old = ResumePoint(point.stamp, point.at - timedelta(minutes=25, seconds=1))
    assert await why(suite, world, tokens(suite).make(tenant, filters, old)) == "EXPIRED"
    young = tokens(suite).make(tenant, filters, ResumePoint(point.stamp, point.at - timedelta(minutes=24)))
    async with watching(suite, world.test_key, complete=False, resume_token=young) as watcher:
        assert (await watcher.next()).kind == Kind.BOOKMARK


async def test_a_new_epoch_begins_open_streams_anew_and_refuses_older_tokens(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    license_id = await issued(shop)
    async with watching(suite, world.test_key) as watcher:
        token = watcher.token
        watcher.told.clear()
        await new_epoch(suite)
        await watcher.until_kind(Kind.SNAPSHOT_COMPLETE)
        assert watcher.told == [("SNAPSHOT_BEGUN", ""), ("SNAPSHOT", license_id), ("SNAPSHOT_COMPLETE", "")]
        assert await why(suite, world, token) == "EPOCH"
        await world.test.licenses.suspend(license_id)
        await watcher.until_code(license_id, "SUSPENDED")


@pytest.mark.parametrize("changes", [5_001, 20_001])
async def test_after_more_changes_than_are_told_one_by_one_a_stream_begins_anew(
    suite: Suite, world: World, changes: int
) -> None:
    shop = await open_shop(world.test)
    kept, deleted = await issued(shop), await issued(shop)
    async with watching(suite, world.test_key) as before:
        pass
    await world.test.licenses.delete(deleted)
    async with suite.admin() as conn:
        await conn.execute(CHANGES_OF, world.account_id, changes)
    await lease_passes()
    async with watching(suite, world.test_key, resume_token=before.token, held=before.held) as after:
        assert after.told[0] == ("SNAPSHOT_BEGUN", "")
        assert set(after.held) == {kept}


async def test_a_truncated_table_begins_a_stream_anew(suite: Suite, world: World) -> None:
    await issued(await open_shop(world.test))
    async with watching(suite, world.test_key) as watcher:
        token = watcher.token
        async with suite.admin() as conn:
            await conn.execute("INSERT INTO record.change_log (kind, key) VALUES ('drop_all', 'license.license')")
        await watcher.until_kind(Kind.SNAPSHOT_BEGUN)
    async with watching(suite, world.test_key, complete=False, resume_token=token) as watcher:
        assert (await watcher.next()).kind == Kind.SNAPSHOT_BEGUN


async def test_a_transaction_that_commits_after_the_token_was_made_is_told(suite: Suite, world: World) -> None:
    """It began before: its id is below those that the token has seen."""
    shop = await open_shop(world.test)
    license_id = await issued(shop)
    suspend = "UPDATE license.license SET status = 'suspended' WHERE license_id = $1"
    async with suite.admin() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute(suspend, license_id)
        await issued(shop)
        async with watching(suite, world.test_key) as before:
            assert before.code(license_id) == "VALID"
        await transaction.commit()
    async with watching(suite, world.test_key, complete=False, resume_token=before.token, held=before.held) as after:
        await after.until_code(license_id, "SUSPENDED")


async def test_times_that_are_moved_by_hand_are_told_too(suite: Suite, world: World) -> None:
    license_id = await issued(await open_shop(world.test))
    async with watching(suite, world.test_key) as watcher:
        past = datetime.now(UTC) - timedelta(hours=1)
        await shift(
            suite, "license.license", "license_id", license_id, starts_at=past - timedelta(hours=1), expires_at=past
        )
        await watcher.until_code(license_id, "EXPIRED")
        assert watcher.held[license_id].code == ValidationCode.EXPIRED
