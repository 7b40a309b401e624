"""License files over the wire: who gets one, what it says, what is left of it, and what verifies it without a call."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson
from lictor import (
    AsyncLictor,
    FailedPrecondition,
    FileEncrypted,
    FileKeyUnknown,
    FileNotDecrypted,
    FileOfOtherMachine,
    FileRolledBack,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    VerifiedFile,
    verify_license_file,
)
from lictor.license.v1 import token_service_pb2 as pb
from lictor.license.v1.license_service_pb2 import LicenseOverrides

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import (
    Shop,
    ago,
    assert_same,
    events,
    open_shop,
    refused_unchanged,
    shift,
    unchanged,
    uuid,
)
from tests.helpers.credentials import open_portal, publishable
from tests.helpers.record import where_found
from tests.helpers.suite import Suite, World, running_suite

FINGERPRINT = "6f1ed002ab5595859014ebf0951522d9"
Status = pb.LicenseFileStatus


async def keys_of(client: AsyncLictor, key_set_id: str) -> str:
    return MessageToJson(await client.signing_keys.public(key_set_id))


async def statuses(client: AsyncLictor, license_id: str) -> list[str]:
    return [Status.Status.Name(file.status) async for file in client.licenses.files(license_id)]


async def test_a_file_is_verified_with_the_published_keys_and_nothing_else(world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test, require_check_in=True, check_in_interval="YEAR", grace_period=timedelta(days=2))
    tier = (await world.test.tiers.create(product_id=shop.product.product_id, slug="pro", display_name="Pro")).tier
    issued = await shop.issue(tier_id=tier.tier_id, customer_email="ada@example.com")
    made = await world.test.licenses.issue_file(issued.license.license_id, ttl=timedelta(days=7), reason="a flight")
    keys, state = await keys_of(world.test, made.key_set_id), tmp_path / "state.json"
    found = verify_license_file(made.file, keys=keys, state=state, product=shop.product.slug)
    assert (found.kind, found.mode, found.tier, found.features) == ("LICENSE", "TEST", "pro", ())
    assert (found.license_id, found.product_id) == (issued.license.license_id, shop.product.product_id)
    assert (found.policy_id, found.customer_id) == (shop.policy.policy_id, issued.license.customer_id)
    assert (found.seq, found.revocation_epoch, found.file_id) == (1, 0, made.license_file.license_file_id)
    assert found.expires_at - found.server_time == timedelta(days=7)
    assert found.expires_at == made.license_file.expire_time.ToDatetime(tzinfo=UTC)
    assert found.license_expires_at == issued.license.expire_time.ToDatetime(tzinfo=UTC)
    assert found.payload["iss"] == "license-server"
    assert found.payload["policy"]["grace_period_s"] == 2 * 86400
    assert abs(found.server_time - datetime.now(UTC)) < timedelta(seconds=30)
    assert "ada@example.com" not in json.dumps(found.payload)


async def test_files_are_numbered_and_the_newest_is_the_one(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id
    made = [await world.test.licenses.issue_file(license_id) for _ in range(3)]
    assert [one.license_file.seq for one in made] == [1, 2, 3]
    assert len({one.license_file.signing_key_id for one in made}) == 1
    assert await statuses(world.test, license_id) == ["SUPERSEDED", "SUPERSEDED", "ISSUED"]
    keys, state = await keys_of(world.test, made[0].key_set_id), tmp_path / "state.json"
    assert verify_license_file(made[1].file, keys=keys, state=state).seq == 2
    assert verify_license_file(made[2].file, keys=keys, state=state).seq == 3
    with pytest.raises(FileRolledBack):
        verify_license_file(made[1].file, keys=keys, state=state)
    told = [event for event in await events(suite, license_id) if event["type"] == "license.checked_out"]
    assert [event["data"]["file_seq"] for event in told] == [1, 2, 3]
    pages = await world.test.licenses.files_page(license_id, page_size=2)
    rest = await world.test.licenses.files_page(license_id, page_size=2, page_token=pages.next_page_token)
    assert [file.seq for file in (*pages.license_files, *rest.license_files)] == [1, 2, 3]


async def test_files_that_are_issued_at_once_have_numbers_of_their_own(world: World) -> None:
    """And the first of them make one key."""
    shop = await open_shop(world.test)
    ids = [(await shop.issue()).license.license_id for _ in range(2)]
    made = await asyncio.gather(*(world.test.licenses.issue_file(ids[n % 2]) for n in range(12)))
    for one in ids:
        seqs = sorted(found.license_file.seq for found in made if found.license_file.license_id == one)
        assert seqs == [1, 2, 3, 4, 5, 6]
    assert len({found.license_file.signing_key_id for found in made}) == 1


async def test_an_encrypted_file_opens_with_the_license_key_alone(world: World) -> None:
    issued = await (await open_shop(world.test)).issue()
    made = await world.test.licenses.issue_file(
        issued.license.license_id, license_key=issued.key.lower(), fingerprint=FINGERPRINT
    )
    keys = await keys_of(world.test, made.key_set_id)
    given: dict[str, str | None] = {"license_key": issued.key, "fingerprint": FINGERPRINT}

    def verified(given: dict[str, str | None]) -> VerifiedFile:
        return verify_license_file(
            made.file, keys=keys, state=None, license_key=given["license_key"], fingerprint=given["fingerprint"]
        )

    assert verified(given).license_id == issued.license.license_id
    assert (made.license_file.encrypted, made.license_file.bound) == (True, True)
    for wrong, refusal in (
        ({**given, "license_key": None}, FileEncrypted),
        ({**given, "license_key": issued.key + "0"}, FileNotDecrypted),
        ({**given, "fingerprint": "another machine"}, FileNotDecrypted),
    ):
        with pytest.raises(refusal):
            verified(wrong)


async def test_a_file_that_is_bound_says_nothing_of_the_fingerprint(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    made = await world.test.licenses.issue_file(license_id, fingerprint=FINGERPRINT)
    keys = await keys_of(world.test, made.key_set_id)
    assert verify_license_file(made.file, keys=keys, state=None, fingerprint=FINGERPRINT).payload["fingerprint"]
    with pytest.raises(FileOfOtherMachine):
        verify_license_file(made.file, keys=keys, state=None, fingerprint="another machine")
    async with suite.admin() as conn:
        assert await where_found(conn, FINGERPRINT) == []
        assert await where_found(conn, made.file.splitlines()[3]) == []


@pytest.mark.parametrize("status", ["suspended", "expired", "revoked", "banned"])
async def test_a_license_that_may_not_be_used_gets_no_file(suite: Suite, world: World, status: str) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue_in(status)).license.license_id
    found = await refused_unchanged(suite, world, pb.IssueLicenseFileRequest(license_id=license_id))
    assert (found.reason, dict(found.info.metadata)) == (
        "STATE_TRANSITION_INVALID",
        {"from": status, "action": "check_out"},
    )


async def test_a_banned_customer_gets_no_file(suite: Suite, world: World) -> None:
    made = (await (await open_shop(world.test)).issue(customer_email="eve@example.com")).license
    await world.test.customers.ban(made.customer_id)
    found = await refused_unchanged(suite, world, pb.IssueLicenseFileRequest(license_id=made.license_id))
    assert found.reason == "CUSTOMER_BANNED"


async def test_bad_fields_are_named_and_change_nothing(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, offline_max_ttl=timedelta(days=7))
    issued, other = await shop.issue(), await shop.issue()
    cases: list[tuple[dict[str, Any], set[tuple[str, str]]]] = [
        ({"ttl": timedelta(hours=1, microseconds=-1)}, {("ttl", "TTL_OUT_OF_RANGE")}),
        ({"ttl": timedelta(days=90, microseconds=1)}, {("ttl", "TTL_OUT_OF_RANGE")}),
        ({"ttl": timedelta(days=7, microseconds=1)}, {("ttl", "TTL_OUT_OF_RANGE")}),
        ({"fingerprint": "1234567"}, {("fingerprint", "LENGTH_OUT_OF_RANGE")}),
        (
            {"fingerprint": "x" * 257, "reason": "x" * 256},
            {("fingerprint", "LENGTH_OUT_OF_RANGE"), ("reason", "LENGTH_OUT_OF_RANGE")},
        ),
        ({"license_key": other.key}, {("license_key", "LICENSE_KEY_MISMATCH")}),
        ({"license_key": "nonsense"}, {("license_key", "LICENSE_KEY_MISMATCH")}),
    ]  # fmt: skip
    async with unchanged(suite, world):
        for given, expected in cases:
            with pytest.raises(InvalidArgument) as refused:
                await world.test.licenses.issue_file(issued.license.license_id, **given)
            assert {(v.field, v.reason) for v in refused.value.violations} == expected, given
            assert other.key not in str(refused.value)
    await world.test.licenses.issue_file(issued.license.license_id, ttl=timedelta(days=7))


async def test_a_key_that_was_rotated_encrypts_nothing(world: World) -> None:
    issued = await (await open_shop(world.test)).issue()
    rotated = await world.test.licenses.rotate_key(issued.license.license_id)
    with pytest.raises(InvalidArgument):
        await world.test.licenses.issue_file(issued.license.license_id, license_key=issued.key)
    assert await world.test.licenses.issue_file(issued.license.license_id, license_key=rotated.key)


async def test_a_license_has_its_own_bound_where_its_policy_lets_it(world: World) -> None:
    shop = await open_shop(world.test, offline_max_ttl=timedelta(days=1), overridable=["OFFLINE_MAX_TTL"])
    own = LicenseOverrides()
    own.offline_max_ttl.FromTimedelta(timedelta(days=20))
    license_id = (await shop.issue(overrides=own)).license.license_id
    made = (await world.test.licenses.issue_file(license_id)).license_file
    assert made.expire_time.ToDatetime() - made.issue_time.ToDatetime() == timedelta(days=20)


async def test_a_retry_gets_the_same_file(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    request = uuid()
    first = await world.test.licenses.issue_file(license_id, request_id=request)
    assert_same(await world.test.licenses.issue_file(license_id, request_id=request), first)
    assert await statuses(world.test, license_id) == ["ISSUED"]
    async with suite.admin() as conn:
        # The stored answer is sealed: the record has the file nowhere.
        assert await where_found(conn, first.file.splitlines()[3]) == []


async def test_a_license_key_gets_a_file_of_its_own_license(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    issued, other = await shop.issue(), await shop.issue()
    key = (await publishable(world.test)).secret
    async with AsyncLictor(api_key=key, license_key=issued.key, endpoint=suite.bound.api_addr) as app:
        made = await app.licenses.issue_file(issued.license.license_id, license_key=issued.key)
        assert made.license_file.license_id == issued.license.license_id
        with pytest.raises(PermissionDenied):
            await app.licenses.issue_file(other.license.license_id)
        with pytest.raises(PermissionDenied):
            await app.licenses.files_page(issued.license.license_id)
    narrow = (await publishable(world.test, scopes=["licenses:validate"])).secret
    async with AsyncLictor(api_key=narrow, license_key=issued.key, endpoint=suite.bound.api_addr) as app:
        with pytest.raises(PermissionDenied):
            await app.licenses.issue_file(issued.license.license_id)
    async with suite.client(key) as alone:
        with pytest.raises(PermissionDenied):
            await alone.licenses.issue_file(issued.license.license_id)


async def test_a_policy_whose_license_keys_are_no_credential_gets_none_by_them(suite: Suite, world: World) -> None:
    issued = await (await open_shop(world.test, authentication="NONE")).issue()
    key = (await publishable(world.test)).secret
    async with AsyncLictor(api_key=key, license_key=issued.key, endpoint=suite.bound.api_addr) as app:
        with pytest.raises(PermissionDenied):
            await app.licenses.issue_file(issued.license.license_id)
    assert await world.test.licenses.issue_file(issued.license.license_id)


async def test_a_customer_gets_files_of_its_own_licenses_alone(suite: Suite, world: World) -> None:
    portal = await open_portal(suite, world)
    async with suite.client(portal.token) as customer:
        mine = [found.license_id async for found in customer.licenses.list()]
        made = await customer.licenses.issue_file(mine[0])
        assert made.license_file.seq == 1
        stranger = (await (await open_shop(world.test, "ELSE")).issue()).license.license_id
        with pytest.raises(NotFound):
            await customer.licenses.issue_file(stranger)
    assert await statuses(world.test, stranger) == []


async def test_files_of_others_are_not_there(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    async with suite.world() as stranger:
        for client in (world.live, stranger.test):
            with pytest.raises(NotFound):
                await client.licenses.issue_file(license_id)
            with pytest.raises(NotFound):
                await client.licenses.files_page(license_id)


async def signed_by(shop: Shop, license_id: str) -> str:
    return (await shop.client.licenses.issue_file(license_id)).license_file.signing_key_id


async def test_rotations_leave_old_files_good_and_revocations_do_not(world: World, tmp_path: Path) -> None:
    shop = await open_shop(world.test)
    product, license_id = shop.product.product_id, (await shop.issue()).license.license_id
    old = await world.test.licenses.issue_file(license_id)
    rotated = await world.test.signing_keys.rotate(product)
    new = await world.test.licenses.issue_file(license_id)
    assert new.license_file.signing_key_id == rotated.signing_key.signing_key_id != old.license_file.signing_key_id
    keys = await keys_of(world.test, old.key_set_id)
    for one in (old, new):
        assert verify_license_file(one.file, keys=keys, state=None)
    await world.test.signing_keys.revoke(old.license_file.signing_key_id)
    with pytest.raises(FileKeyUnknown):
        verify_license_file(old.file, keys=await keys_of(world.test, old.key_set_id), state=None)
    assert await statuses(world.test, license_id) == ["REVOKED", "ISSUED"]
    # Keys that were built in believe the old file still, until a newer one tells them of the revocation.
    state = tmp_path / "state.json"
    assert verify_license_file(new.file, keys=keys, state=state).revocation_epoch == 0
    newest = await world.test.licenses.issue_file(license_id)
    assert verify_license_file(newest.file, keys=keys, state=state).revocation_epoch == 1
    with pytest.raises(FileRolledBack):
        verify_license_file(new.file, keys=keys, state=state)


async def test_a_revoked_key_signs_nothing_more_and_the_next_file_makes_another(world: World) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id
    first = await signed_by(shop, license_id)
    await world.test.signing_keys.revoke(first)
    second = await signed_by(shop, license_id)
    assert second != first
    waiting = await world.test.signing_keys.rotate(shop.product.product_id, publication_lead=timedelta(days=7))
    assert await signed_by(shop, license_id) == second
    await world.test.signing_keys.revoke(second)
    assert await signed_by(shop, license_id) == waiting.signing_key.signing_key_id, "it was published already"


async def test_a_key_takes_over_in_its_time(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    license_id = (await shop.issue()).license.license_id
    first = await signed_by(shop, license_id)
    waiting = await world.test.signing_keys.rotate(shop.product.product_id, publication_lead=timedelta(days=7))
    key_id = waiting.signing_key.signing_key_id
    assert await signed_by(shop, license_id) == first
    await shift(suite, "license.signing_key", "signing_key_id", key_id, activates_at=ago(seconds=1))
    signers = await asyncio.gather(*(retried(shop, license_id) for _ in range(6)))
    assert set(signers) == {key_id}
    told = [event["type"] for event in await events(suite, first)]
    assert told == ["signing_key.created", "signing_key.activated", "signing_key.retired"]


async def retried(shop: Shop, license_id: str) -> str:
    """Whoever meets the change of keys in its very moment is told to try again."""
    while True:
        try:
            return await signed_by(shop, license_id)
        except Exception as error:
            if getattr(error, "reason", "") != "TRANSACTION_CONFLICT":
                raise


async def test_no_file_is_signed_with_a_key_after_its_revocation_returned(world: World) -> None:
    """Files and revocations race; every file that was asked for after a revocation has another key."""
    shop = await open_shop(world.test)
    licenses = [(await shop.issue()).license.license_id for _ in range(4)]
    gone: set[str] = set()
    stop = asyncio.Event()
    wrong: list[str] = []

    async def sign(license_id: str) -> None:
        while not stop.is_set():
            before = set(gone)
            wrong.extend({await retried(shop, license_id)} & before)

    signing = [asyncio.create_task(sign(license_id)) for license_id in licenses]
    for _ in range(12):
        key_id = await retried(shop, licenses[0])
        try:
            await world.test.signing_keys.revoke(key_id)
        except FailedPrecondition:
            continue
        gone.add(key_id)
    stop.set()
    await asyncio.gather(*signing)
    assert wrong == []
    assert len(gone) >= 10


async def test_a_deleted_license_takes_its_files_with_it(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    await world.test.licenses.issue_file(license_id)
    await world.test.licenses.delete(license_id)
    async with suite.admin() as conn:
        left = await conn.fetchval("SELECT count(*) FROM license.license_file WHERE license_id = $1", license_id)
    assert left == 0


async def test_without_a_kek_no_file_is_issued(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with running_suite(postgres, tmp_path, kek_file=None) as without, without.world() as world:
        license_id = (await (await open_shop(world.test, key_storage="HASH_ONLY")).issue()).license.license_id
        found = await refused_unchanged(without, world, pb.IssueLicenseFileRequest(license_id=license_id))
        assert found.reason == "KEY_STORAGE_UNAVAILABLE"
