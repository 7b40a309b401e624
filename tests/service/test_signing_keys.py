"""Signing keys over the wire: who signs, who is published, who may read what, and what is left in the record."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lictor import FailedPrecondition, InvalidArgument, NotFound
from lictor.license.v1 import token_service_pb2 as pb

from services.license import signing_key_store
from shared.crypto import keyring
from shared.crypto.keyring import Place
from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import Mode
from tests.helpers.builders import ago, events, open_shop, refused_by, refused_unchanged, shift, unchanged
from tests.helpers.echo import Refusal
from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite, World, running_suite

LEAD = timedelta(days=7)
Status = pb.SigningKeyStatus


async def product_id(world: World, code: str = "SIGN") -> str:
    return (await world.test.products.create(code=code, display_name="Product")).product.product_id


async def statuses(world: World, product: str) -> dict[str, str]:
    return {key.signing_key_id: Status.Status.Name(key.status) async for key in world.test.signing_keys.list(product)}


async def published(suite: Suite, key_set_id: str) -> set[str]:
    """The ids of the keys that anybody sees, asked for without a credential."""
    found = await suite.tokens.GetJsonWebKeySet(pb.GetJsonWebKeySetRequest(key_set_id=key_set_id))
    return {key.kid for key in found.keys}


async def test_a_rotation_makes_the_first_key_and_publishes_it(suite: Suite, world: World) -> None:
    product = await product_id(world)
    assert (await world.test.signing_keys.page(product)).key_set_id == ""
    made = await world.test.signing_keys.rotate(product, reason="the first")
    key = made.signing_key
    assert made.key_set_id.startswith("kset_")
    assert not made.HasField("previous_signing_key")
    assert (key.status, key.algorithm, key.purpose) == (Status.ACTIVE, 1, 1)
    assert (await world.test.signing_keys.page(product)).key_set_id == made.key_set_id
    found = await suite.tokens.GetJsonWebKeySet(pb.GetJsonWebKeySetRequest(key_set_id=made.key_set_id))
    assert list(found.keys) == [key.public_jwk]
    jwk = found.keys[0]
    assert (jwk.kty, jwk.crv, jwk.alg, jwk.use, jwk.kid) == ("OKP", "Ed25519", "EdDSA", "sig", key.signing_key_id)
    assert len(base64.urlsafe_b64decode(jwk.x + "=")) == 32
    told = await events(suite, key.signing_key_id)
    assert [event["type"] for event in told] == ["signing_key.created", "signing_key.activated"]
    assert {event["reason"] for event in told} == {"the first"}


async def test_a_rotation_retires_the_key_before_and_takes_its_private_half(suite: Suite, world: World) -> None:
    product = await product_id(world)
    first = await world.test.signing_keys.rotate(product)
    second = await world.test.signing_keys.rotate(product)
    assert second.previous_signing_key.signing_key_id == first.signing_key.signing_key_id
    assert second.previous_signing_key.status == Status.RETIRED
    old, new = first.signing_key.signing_key_id, second.signing_key.signing_key_id
    assert await statuses(world, product) == {old: "RETIRED", new: "ACTIVE"}
    assert await published(suite, second.key_set_id) == {old, new}
    async with suite.admin() as conn:
        rows = await conn.fetch("SELECT * FROM license.signing_key WHERE product_id = $1", product)
    sealed = {row["signing_key_id"]: row for row in rows if row["ciphertext"] is not None}
    assert set(sealed) == {new}
    # What is left opens with the KEK, in its place alone, and is the other half of what is published.
    assert suite.settings.kek_file is not None
    kek, row = keyring.load(suite.settings.kek_file), sealed[new]
    wrapped = keyring.Wrapped(row["kek_version"], row["nonce"], row["ciphertext"])
    raw = await kek.unwrap(wrapped, Place(signing_key_store.SEALED_COLUMN, world.tenant(), new))
    x = base64.urlsafe_b64encode(Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw())
    assert x.decode().rstrip("=") == second.signing_key.public_jwk.x
    with pytest.raises(keyring.UnwrapError):
        await kek.unwrap(wrapped, Place(signing_key_store.SEALED_COLUMN, world.tenant(Mode.LIVE), new))


async def test_a_key_with_a_lead_is_published_and_waits(suite: Suite, world: World) -> None:
    product = await product_id(world)
    first = (await world.test.signing_keys.rotate(product, publication_lead=LEAD)).signing_key
    assert first.status == Status.ACTIVE, "there was nothing to wait for"
    made = await world.test.signing_keys.rotate(product, publication_lead=LEAD)
    waiting = made.signing_key
    assert waiting.status == Status.PENDING
    assert waiting.activate_time.ToDatetime() == waiting.create_time.ToDatetime() + LEAD
    assert made.previous_signing_key.status == Status.ACTIVE
    assert await published(suite, made.key_set_id) == {first.signing_key_id, waiting.signing_key_id}
    for lead in (None, LEAD):
        with pytest.raises(FailedPrecondition) as refused:
            await world.test.signing_keys.rotate(product, publication_lead=lead)
        assert refused.value.metadata == {"from": "PENDING", "action": "rotate"}
    await shift(suite, "license.signing_key", "signing_key_id", waiting.signing_key_id, activates_at=ago(seconds=1))
    third = await world.test.signing_keys.rotate(product)
    assert third.previous_signing_key.signing_key_id == waiting.signing_key_id
    assert await statuses(world, product) == {
        first.signing_key_id: "RETIRED",
        waiting.signing_key_id: "RETIRED",
        third.signing_key.signing_key_id: "ACTIVE",
    }
    told = [event["type"] for event in await events(suite, waiting.signing_key_id)]
    assert told == ["signing_key.created", "signing_key.activated", "signing_key.retired"]


async def test_a_revoked_key_is_gone_from_every_process_when_the_call_returns(suite: Suite, world: World) -> None:
    product = await product_id(world)
    for _ in range(3):
        made = await world.test.signing_keys.rotate(product)
        assert made.signing_key.signing_key_id in await published(suite, made.key_set_id)
        done = await world.test.signing_keys.revoke(made.signing_key.signing_key_id, reason="leaked")
        assert done.signing_key.status == Status.REVOKED
        assert done.signing_key.HasField("revoke_time")
        assert made.signing_key.signing_key_id not in await published(suite, made.key_set_id)
        with pytest.raises(FailedPrecondition) as refused:
            await world.test.signing_keys.revoke(made.signing_key.signing_key_id)
        assert refused.value.metadata == {"from": "REVOKED", "action": "revoke"}
    async with suite.admin() as conn:
        row = await conn.fetchrow(
            "SELECT s.revocation_epoch, (SELECT count(*) FROM license.signing_key AS k WHERE k.product_id = s.product_id "
            "AND k.ciphertext IS NOT NULL) AS private FROM license.key_set AS s WHERE s.product_id = $1",
            product,
        )
    assert row is not None
    assert (row["revocation_epoch"], row["private"]) == (3, 0)


@pytest.mark.parametrize("lead", [timedelta(microseconds=-1), timedelta(days=30, microseconds=1)])
async def test_a_lead_has_bounds(suite: Suite, world: World, lead: timedelta) -> None:
    product = await product_id(world)
    async with unchanged(suite, world):
        with pytest.raises(InvalidArgument) as refused:
            await world.test.signing_keys.rotate(product, publication_lead=lead)
    assert [violation.field for violation in refused.value.violations] == ["publication_lead"]
    await world.test.signing_keys.rotate(product)
    assert (await world.test.signing_keys.rotate(product, publication_lead=timedelta(days=30))).signing_key.status == 1


async def test_keys_of_others_are_not_there(suite: Suite, world: World) -> None:
    product = await product_id(world)
    made = await world.test.signing_keys.rotate(product)
    async with suite.world() as stranger:
        for client in (world.live, stranger.test):
            with pytest.raises(NotFound):
                await client.signing_keys.revoke(made.signing_key.signing_key_id)
            with pytest.raises(NotFound):
                await client.signing_keys.rotate(product)
            with pytest.raises(NotFound):
                await client.signing_keys.page(product)


async def test_whoever_asks_for_a_key_set_is_nobody(suite: Suite, world: World) -> None:
    """No credential, and none that is shown is looked at."""
    made = await world.test.signing_keys.rotate(await product_id(world))
    request = pb.GetJsonWebKeySetRequest(key_set_id=made.key_set_id)
    for metadata in ((), (("authorization", "Bearer nonsense"),)):
        call = suite.tokens.GetJsonWebKeySet(request, metadata=metadata)
        assert [key.kid for key in (await call).keys] == [made.signing_key.signing_key_id]
        headers: dict[str, Any] = dict(await call.initial_metadata())  # pyright: ignore[reportArgumentType]
        assert headers["cache-control"] == "public, max-age=300"
    unknown = pb.GetJsonWebKeySetRequest(key_set_id="kset_" + "0" * 32)
    found = await refused_by(suite.tokens.GetJsonWebKeySet(unknown))
    assert (found.reason, found.code.name) == ("KEY_SET_NOT_FOUND", "NOT_FOUND")
    found = await refused_by(suite.tokens.GetJsonWebKeySet(pb.GetJsonWebKeySetRequest()))
    assert found.reason == "FIELD_INVALID"


async def test_a_product_takes_its_keys_with_it(suite: Suite, world: World) -> None:
    product = await product_id(world)
    made = await world.test.signing_keys.rotate(product)
    assert await published(suite, made.key_set_id)
    await world.test.products.delete(product)
    found = await refused_by(suite.tokens.GetJsonWebKeySet(pb.GetJsonWebKeySetRequest(key_set_id=made.key_set_id)))
    assert found.reason == "KEY_SET_NOT_FOUND"


async def test_rotations_at_once_leave_one_key_that_signs(suite: Suite, world: World) -> None:
    product = await product_id(world)
    await asyncio.gather(*(world.test.signing_keys.rotate(product) for _ in range(8)))
    assert sorted((await statuses(world, product)).values()) == ["ACTIVE"] + ["RETIRED"] * 7


async def test_without_a_kek_nothing_is_signed_and_nothing_is_left(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with running_suite(postgres, tmp_path, kek_file=None) as without, without.world() as world:
        made = await open_shop(world.test, key_storage="HASH_ONLY")
        request = pb.RotateSigningKeyRequest(product_id=made.product.product_id)
        found = await refused_unchanged(without, world, request)
        assert (found.reason, dict(found.info.metadata)) == ("KEY_STORAGE_UNAVAILABLE", {"field": "signing_key"})
        assert "LICTOR_KEK_FILE" in found.message


async def test_an_address_asks_for_key_sets_a_hundred_times_a_second(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with running_suite(postgres, tmp_path) as own:
        request = pb.GetJsonWebKeySetRequest(key_set_id="kset_none")
        reasons: dict[str, int] = {}
        found: list[Refusal] = []
        for _ in range(30):
            found = await asyncio.gather(*(refused_by(own.tokens.GetJsonWebKeySet(request)) for _ in range(20)))
            for one in found:
                reasons[one.reason] = reasons.get(one.reason, 0) + 1
            if reasons.get("RATE_LIMITED"):
                break
        assert reasons["KEY_SET_NOT_FOUND"] >= 20, "its share, of the processes that others' tests run beside it"
        limited = next(one for one in found if one.reason == "RATE_LIMITED")
        assert dict(limited.info.metadata) == {"limit": "anonymous_calls_per_second", "allowed": "100"}
        assert limited.retry_ms is not None


async def test_what_was_asked_for_before_there_was_a_key_is_found_once_there_is(suite: Suite, world: World) -> None:
    """A set that is not there is remembered too, until it is."""
    made = await world.test.signing_keys.rotate(await product_id(world))
    second = await world.test.signing_keys.rotate(await product_id(world, "MORE"))
    assert made.key_set_id != second.key_set_id
    await lease_passes()
    assert await published(suite, second.key_set_id) == {second.signing_key.signing_key_id}
