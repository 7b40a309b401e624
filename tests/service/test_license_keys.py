"""License keys that are kept to be shown again: who sees them, what is written down, what a stolen table gives away."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from lictor import LictorError
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import license_service_pb2 as pb

from services.license import key_store
from shared.crypto import keyring
from shared.crypto.keyring import Place, Wrapped
from shared.crypto.private_files import generate_line
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import assert_same, events, key_with, open_shop, refused, send, unchanged
from tests.helpers.echo import Refusal
from tests.helpers.suite import Suite, World, running_suite

STATES = ("active", "suspended", "expired", "revoked", "banned")


async def sealed_rows(suite: Suite, license_id: str) -> list[Any]:
    async with suite.admin() as admin:
        return await admin.fetch(
            "SELECT account_id, mode, key_hash, license_id, kek_version, nonce, ciphertext FROM license.license_key "
            "WHERE license_id = $1",
            license_id,
        )


def seen(refusal: Refusal) -> tuple[grpc.StatusCode, str]:
    return refusal.code, refusal.reason


@pytest.mark.parametrize("status", STATES)
async def test_a_key_is_shown_as_it_was_issued_in_every_state(world: World, status: str) -> None:
    made = await (await open_shop(world.test)).issue_in(status)
    shown = await world.test.licenses.reveal_key(made.license.license_id)
    assert shown.key == made.key
    assert (shown.license.license_id, shown.license.revision) == (
        made.license.license_id, 1 if status in {"active", "expired"} else 2,
    )  # fmt: skip


async def test_a_key_of_ones_own_is_shown_in_its_own_spelling(world: World) -> None:
    key = f"my-Own_key-{uuid4().hex}-oil"
    made = await (await open_shop(world.test)).issue(key=key)
    assert (await world.test.licenses.reveal_key(made.license.license_id)).key == key
    assert (await world.test.validate(key=key.upper())).valid


async def test_sealed_is_the_default_and_is_told(world: World) -> None:
    for code, given, kept in (
        ("ONE", None, "SEALED"),
        ("TWO", "SEALED", "SEALED"),
        ("THREE", "HASH_ONLY", "HASH_ONLY"),
    ):
        product = (await world.test.products.create(code=code, display_name="x", key_storage=given)).product
        read = await world.test.products.get(product.product_id)
        assert product.key_storage == read.key_storage == catalog.KeyStorage.Kind.Value(kept)
        changed = (await world.test.products.update(product.product_id, display_name="y")).product
        assert changed.key_storage == product.key_storage
        assert (await world.test.products.page()).products[-1].key_storage == product.key_storage


async def test_the_storage_of_a_product_cannot_be_changed(suite: Suite, world: World) -> None:
    product = (await open_shop(world.test)).product
    request = catalog.UpdateProductRequest(product_id=product.product_id)
    request.update_mask.paths.append("key_storage")
    assert (await refused(suite, request, world.test_key)).reason == "FIELD_INVALID"


async def test_an_unknown_storage_is_refused(suite: Suite, world: World) -> None:
    request = catalog.CreateProductRequest(code="ODD", display_name="x", key_storage=9)  # pyright: ignore[reportArgumentType]
    async with unchanged(suite, world):
        refusal = await refused(suite, request, world.test_key)
    assert refusal.violations == [("key_storage", "ENUM_UNKNOWN")]


async def test_a_hash_alone_shows_nothing(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, key_storage="HASH_ONLY")
    made = await shop.issue()
    assert [row["ciphertext"] for row in await sealed_rows(suite, made.license.license_id)] == [None]
    async with unchanged(suite, world):
        refusal = await refused(suite, pb.RevealLicenseKeyRequest(license_id=made.license.license_id), world.test_key)
    assert seen(refusal) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_NOT_STORED")
    assert (await world.test.validate(key=made.key)).valid


async def test_a_key_from_before_keys_were_sealed_is_not_stored(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    async with suite.admin() as admin:
        await admin.execute(
            "UPDATE license.license_key SET kek_version = NULL, nonce = NULL, ciphertext = NULL WHERE license_id = $1",
            made.license.license_id,
        )
    with pytest.raises(LictorError) as error:
        await world.test.licenses.reveal_key(made.license.license_id)
    assert error.value.reason == "KEY_NOT_STORED"


async def test_showing_a_key_is_written_down_without_it(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    license_id, request_id = made.license.license_id, str(uuid4())
    first = await world.test.licenses.reveal_key(license_id, reason="lost it", request_id=request_id)
    again = await world.test.licenses.reveal_key(license_id, reason="lost it", request_id=request_id)
    assert_same(again, first)
    written = [event for event in await events(suite, license_id) if event["type"] == "license.key.revealed"]
    assert len(written) == 1
    who = await world.test.whoami()
    assert (written[0]["reason"], written[0]["actor"], written[0]["in_outbox"]) == ("lost it", who.key_id, True)
    assert made.key not in str(dict(written[0]))
    assert "key_hint" not in written[0]["data"]


async def test_the_scope_is_one_of_its_own(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    request = pb.RevealLicenseKeyRequest(license_id=made.license.license_id)
    others = await key_with(world.test, "licenses:read", "licenses:write", "licenses:validate")
    assert (await refused(suite, request, others)).reason == "CALLER_NOT_ALLOWED"
    assert (await send(suite, request, await key_with(world.test, "licenses:reveal"))).key == made.key


async def test_no_other_world_is_shown_a_key(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    request = pb.RevealLicenseKeyRequest(license_id=made.license.license_id)
    async with suite.world() as other:
        for key in (world.live_key, other.test_key):
            assert (await refused(suite, request, key)).reason == "LICENSE_NOT_FOUND"


async def test_a_deleted_license_leaves_a_hash(suite: Suite, world: World) -> None:
    made = await (await open_shop(world.test)).issue()
    (row,) = await sealed_rows(suite, made.license.license_id)
    assert row["ciphertext"] is not None
    await world.test.licenses.delete(made.license.license_id)
    async with suite.admin() as admin:
        left = await admin.fetchrow("SELECT * FROM license.license_key WHERE key_hash = $1", row["key_hash"])
    assert left is not None
    assert [left[name] for name in ("license_id", "kek_version", "nonce", "ciphertext")] == [None] * 4


async def test_what_is_stored_opens_with_the_kek_in_its_own_row_alone(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    one, two = [await shop.issue() for _ in range(2)]
    (row,), (other,) = [await sealed_rows(suite, made.license.license_id) for made in (one, two)]
    assert suite.settings.kek_file is not None
    kek = keyring.load(suite.settings.kek_file)
    place = Place(key_store.SEALED_COLUMN, world.tenant(), row["key_hash"].hex())
    sealed = Wrapped(row["kek_version"], row["nonce"], row["ciphertext"])
    assert await kek.unwrap(sealed, place) == one.key.encode()
    async with suite.admin() as admin:
        await admin.execute(
            "UPDATE license.license_key SET nonce = $2, ciphertext = $3 WHERE key_hash = $1",
            other["key_hash"], row["nonce"], row["ciphertext"],
        )  # fmt: skip
    refusal = await refused(suite, pb.RevealLicenseKeyRequest(license_id=two.license.license_id), world.test_key)
    assert seen(refusal) == (grpc.StatusCode.INTERNAL, "INTERNAL_FAULT")
    assert one.key not in str(refusal)


async def test_without_a_kek_nothing_is_sealed_and_the_rest_goes_on(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with running_suite(postgres, tmp_path) as with_kek, with_kek.world() as world:
        shop = await open_shop(world.test)
        made = await shop.issue()
        async with (
            running_suite(postgres, tmp_path, kek_file=None) as without,
            without.client(world.test_key) as client,
        ):
            for request in (
                catalog.CreateProductRequest(code="SEALED", display_name="x"),
                pb.CreateLicenseRequest(policy_id=shop.policy.policy_id),
                pb.RevealLicenseKeyRequest(license_id=made.license.license_id),
            ):
                async with unchanged(without, world):
                    refusal = await refused(without, request, world.test_key)
                assert seen(refusal) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_STORAGE_UNAVAILABLE")
                assert dict(refusal.info.metadata) == {"field": "key_storage"}
            assert (await client.validate(key=made.key)).valid
            hashed = await open_shop(client, code="HASHED", key_storage="HASH_ONLY")
            assert (await client.validate(key=(await hashed.issue()).key)).valid


async def test_keys_outlive_a_rotation_of_the_kek_while_both_are_live(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    kek_file = tmp_path / "kek"
    async with running_suite(postgres, tmp_path) as suite, suite.world() as world:
        shop = await open_shop(world.test)
        made = await shop.issue()
        old_line, new_line = kek_file.read_text(), generate_line(2)
        kek_file.write_text(old_line + new_line)
        async with running_suite(postgres, tmp_path) as both, both.client(world.test_key) as client:
            assert (await client.licenses.reveal_key(made.license.license_id)).key == made.key
            newer = await client.licenses.create(policy_id=shop.policy.policy_id)
            assert [row["kek_version"] for row in await sealed_rows(both, newer.license.license_id)] == [2]
        kek_file.write_text(new_line)
        async with running_suite(postgres, tmp_path) as after, after.client(world.test_key) as client:
            assert (await client.licenses.reveal_key(newer.license.license_id)).key == newer.key
            refusal = await refused(
                after, pb.RevealLicenseKeyRequest(license_id=made.license.license_id), world.test_key
            )
            assert seen(refusal) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_STORAGE_UNAVAILABLE")
            assert "version 1 of the KEK" in refusal.message
