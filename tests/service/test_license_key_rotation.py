"""A license's new key: from when on it counts, how long those before it do, and that there is always exactly one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from lictor import InvalidArgument
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1 import license_service_pb2 as pb
from lictor.license.v1 import validation_service_pb2 as validation

from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import ahead, assert_same, events, open_shop, refused, send, shift, unchanged
from tests.helpers.record import insert, sample, scratch
from tests.helpers.suite import Suite, World

HOUR = timedelta(hours=1)
DAYS = timedelta(days=7)
CODE = validation.ValidationCode.Code


async def key_rows(suite: Suite, license_id: str) -> list[Any]:
    """The keys of a license, the current one last."""
    async with suite.admin() as admin:
        return await admin.fetch(
            "SELECT key_hash, expires_at, kek_version, ciphertext FROM license.license_key WHERE license_id = $1 "
            "ORDER BY expires_at NULLS LAST",
            license_id,
        )


async def answer(suite: Suite, world: World, key: str) -> validation.ValidateLicenseResponse:
    request = validation.ValidateLicenseRequest(license=LicenseSelector(license_key=key))
    return await send(suite, request, world.test_key)


async def end_of(suite: Suite, license_id: str) -> datetime:
    """When the key before the current one ends."""
    return (await key_rows(suite, license_id))[-2]["expires_at"]


async def pass_time(suite: Suite, license_id: str, expires_at: datetime) -> None:
    """Moves the ends of replaced keys, which no call can do."""
    async with suite.admin() as admin:
        done = await admin.execute(
            "UPDATE license.license_key SET expires_at = $2 WHERE license_id = $1 AND expires_at IS NOT NULL",
            license_id, expires_at,
        )  # fmt: skip
        assert done.startswith("UPDATE ")
        assert done != "UPDATE 0"


async def test_without_an_overlap_the_old_key_ends_at_once(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    done = await world.test.licenses.rotate_key(made.license.license_id, reason="leaked")
    assert done.key != made.key
    assert done.key.startswith("SHOP-")
    assert done.license.key_hint == done.key[-4:]
    assert (done.license.revision, done.license.etag) == (2, "r2")
    assert done.old_keys_end_time.ToNanoseconds() <= done.effective_time.ToNanoseconds()
    old, new = await answer(suite, world, made.key), await answer(suite, world, done.key)
    assert (old.valid, old.code, list(old.all_codes), old.license_id) == (False, CODE.NOT_FOUND, [CODE.NOT_FOUND], "")
    assert not old.decision.HasField("valid_until")
    assert (new.valid, new.license_id) == (True, made.license.license_id)
    assert (await world.test.licenses.get(made.license.license_id)) == done.license


async def test_the_old_key_works_on_for_the_overlap_and_says_when_it_ends(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test, duration=None)).issue()
    license_id = made.license.license_id
    done = await world.test.licenses.rotate_key(license_id, overlap=DAYS)
    old, new = await answer(suite, world, made.key), await answer(suite, world, done.key)
    end = await end_of(suite, license_id)
    assert done.old_keys_end_time.ToDatetime(tzinfo=UTC) == end == old.decision.valid_until.ToDatetime(tzinfo=UTC)
    assert not new.decision.HasField("valid_until")
    for one in (old, new):
        one.ClearField("decision")
    assert old == new, "the old key tells something else than the new one"
    assert old.valid
    await pass_time(suite, license_id, end - DAYS - HOUR)
    assert (await answer(suite, world, made.key)).code == CODE.NOT_FOUND
    assert (await answer(suite, world, done.key)).valid


async def test_a_key_that_ends_soon_is_to_be_asked_again_soon(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    await world.test.licenses.rotate_key(made.license.license_id, overlap=timedelta(seconds=60))
    for suspended in (False, True):
        if suspended:
            await world.test.licenses.suspend(made.license.license_id)
        found = await answer(suite, world, made.key)
        assert found.valid is not suspended
        assert timedelta(0) < found.decision.recheck_after.ToTimedelta() <= timedelta(seconds=60)
        left = found.decision.valid_until.ToNanoseconds() - found.decision.evaluated_at.ToNanoseconds()
        assert 0 < left <= 60 * 10**9


async def test_no_earlier_key_outlives_the_last_overlap(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    license_id = made.license.license_id
    second = await world.test.licenses.rotate_key(license_id, overlap=DAYS)
    third = await world.test.licenses.rotate_key(license_id, overlap=HOUR)
    first_end, second_end = [row["expires_at"] for row in (await key_rows(suite, license_id))[:2]]
    assert first_end == second_end == third.old_keys_end_time.ToDatetime(tzinfo=UTC)
    longer = await world.test.licenses.rotate_key(license_id, overlap=DAYS)
    ends = [row["expires_at"] for row in await key_rows(suite, license_id)]
    assert ends == [first_end, first_end, longer.old_keys_end_time.ToDatetime(tzinfo=UTC), None]
    for key in (made.key, second.key, third.key, longer.key):
        assert (await answer(suite, world, key)).valid
    last = await world.test.licenses.rotate_key(license_id)
    for key in (made.key, second.key, third.key, longer.key):
        assert (await answer(suite, world, key)).code == CODE.NOT_FOUND
    assert (await answer(suite, world, last.key)).valid


@pytest.mark.parametrize("storage", ["SEALED", "HASH_ONLY"])
async def test_the_new_key_is_kept_as_its_product_says_and_the_old_one_as_a_hash(
    suite: Suite, world: World, storage: str
) -> None:
    made = await (await open_shop(world.test, key_storage=storage)).issue()
    done = await world.test.licenses.rotate_key(made.license.license_id, overlap=DAYS)
    old, new = await key_rows(suite, made.license.license_id)
    assert (old["kek_version"], old["ciphertext"]) == (None, None)
    assert (new["ciphertext"] is not None) == (storage == "SEALED")
    if storage == "SEALED":
        assert (await world.test.licenses.reveal_key(made.license.license_id)).key == done.key


async def test_a_key_of_ones_own_is_taken_and_no_key_ever_again(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    made, other = await shop.issue(), await shop.issue()
    license_id, own = made.license.license_id, f"Own-{uuid4().hex}"
    assert (await world.test.licenses.rotate_key(license_id, key=own)).key == own
    assert (await answer(suite, world, own.upper())).valid
    for key in (made.key, own, own.lower(), other.key):
        async with unchanged(suite, world):
            refusal = await refused(suite, pb.RotateLicenseKeyRequest(license_id=license_id, key=key), world.test_key)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "KEY_TAKEN")
        assert key not in str(refusal)
    await world.test.licenses.delete(license_id)
    for key in (made.key, own):
        request = pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, key=key)
        assert (await refused(suite, request, world.test_key)).reason == "KEY_TAKEN"


async def test_a_repeat_gets_the_same_key_and_rotates_once(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    license_id, request_id = made.license.license_id, str(uuid4())
    first = await world.test.licenses.rotate_key(license_id, reason="leaked", request_id=request_id)
    assert_same(await world.test.licenses.rotate_key(license_id, reason="leaked", request_id=request_id), first)
    written = [event for event in await events(suite, license_id) if event["type"] == "license.key.rotated"]
    assert [(event["reason"], event["in_outbox"]) for event in written] == [("leaked", True)]
    for key in (made.key, first.key):
        assert key not in str(dict(written[0]))
        assert key[-4:] not in written[0]["data"].values()


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
async def test_an_overlap_out_of_range_is_refused(suite: Suite, world: World, overlap: timedelta) -> None:
    made = await (await open_shop(world.test)).issue()
    async with unchanged(suite, world):
        with pytest.raises(InvalidArgument) as error:
            await world.test.licenses.rotate_key(made.license.license_id, overlap=overlap, key="no")
    assert {(one.field, one.reason) for one in error.value.violations} == {
        ("overlap", "DURATION_OUT_OF_RANGE"), ("key", "LICENSE_KEY_INVALID"),
    }  # fmt: skip
    assert (await world.test.licenses.rotate_key(made.license.license_id, overlap=timedelta(days=30))).key


async def test_a_stale_etag_and_strangers_are_refused(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    license_id = made.license.license_id
    async with suite.world() as other, unchanged(suite, world):
        stale = await refused(suite, pb.RotateLicenseKeyRequest(license_id=license_id, etag="r0"), world.test_key)
        assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        for key in (world.live_key, other.test_key):
            refusal = await refused(suite, pb.RotateLicenseKeyRequest(license_id=license_id), key)
            assert refusal.reason == "LICENSE_NOT_FOUND"


async def test_an_expired_license_stays_expired(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue(expire_time=ahead(days=1))
    await shift(
        suite,
        "license.license",
        "license_id",
        made.license.license_id,
        expires_at=datetime.now(UTC) - timedelta(days=1),
    )
    done = await world.test.licenses.rotate_key(made.license.license_id)
    assert pb.LicenseStatus.Status.Name(done.license.status) == "expired"
    assert (await answer(suite, world, done.key)).code == CODE.EXPIRED


@pytest.mark.parametrize("overlap", [timedelta(0), HOUR])
async def test_rotations_at_once_leave_exactly_one_current_key(suite: Suite, world: World, overlap: timedelta) -> None:
    made = await (await open_shop(world.test)).issue()
    license_id, n = made.license.license_id, 8
    request = pb.RotateLicenseKeyRequest(license_id=license_id)
    request.overlap.FromTimedelta(overlap)
    done = await asyncio.gather(*(send(suite, request, world.test_key) for _ in range(n)))
    rows = await key_rows(suite, license_id)
    assert (len(rows), [row["expires_at"] for row in rows].count(None)) == (n + 1, 1)
    assert [row["ciphertext"] is not None for row in rows] == [False] * n + [True]
    current = (await world.test.licenses.reveal_key(license_id)).key
    last = max(done, key=lambda one: one.license.revision)
    assert (current, last.license.revision, last.license.key_hint) == (last.key, n + 1, current[-4:])
    keys = [made.key, *(one.key for one in done)]
    assert len(set(keys)) == n + 1
    valid = [key for key in keys if (await answer(suite, world, key)).valid]
    assert valid == ([current] if not overlap else keys)


async def test_of_two_with_the_same_etag_one_wins(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    request = pb.RotateLicenseKeyRequest(license_id=made.license.license_id, etag=made.license.etag)
    done = await asyncio.gather(*(send(suite, request, world.test_key) for _ in range(2)), return_exceptions=True)
    assert sorted(isinstance(one, grpc.aio.AioRpcError) for one in done) == [False, True]
    assert len(await key_rows(suite, made.license.license_id)) == 2


async def test_the_version_before_refuses_a_key_that_has_ended_too(postgres: EmbeddedPostgres, world: World) -> None:
    """It asks the fact function for the license alone, and knows no end of a key."""
    tenant = world.tenant()
    async with scratch(postgres) as db, db.connect() as admin, db.connect(Role.FACTS) as facts:
        for table, row in sample(tenant, 0).items():
            await insert(admin, table, row)
        for moved, known in (("1 hour", True), ("-1 hour", False)):
            key_hash = await admin.fetchval(
                "UPDATE license.license_key SET expires_at = now() + $1::text::interval RETURNING key_hash", moved
            )
            found = await facts.fetch(
                "SELECT k.license_id FROM license.license_key_facts($1, $2, $3) AS k",
                tenant.account_id, tenant.mode.value, [key_hash],
            )  # fmt: skip
            assert bool(found) is known
