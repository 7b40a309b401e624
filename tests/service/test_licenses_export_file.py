"""`lictor licenses export`: what it writes is what an import takes, and an import of it gives the same licenses."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from lictor.license.v1.license_service_pb2 import LicenseOverrides

from tests.helpers.builders import Shop, ago, ahead, at, events, key_with, open_shop, unchanged
from tests.helpers.machines import has_machines
from tests.helpers.serving import until
from tests.helpers.suite import Suite, World
from tests.helpers.transfer import many, mode_of, read, run, size_of, start, write

STATES = ("active", "suspended", "expired", "revoked", "banned")


async def furnished(world: World, key_storage: str = "SEALED") -> Shop:
    """A shop whose policy and tier another account can tell by name."""
    shop = await open_shop(world.test, key_storage=key_storage, overridable=["MAX_USES"])
    await world.test.policies.update(shop.policy.policy_id, external_id="basic")
    await world.test.tiers.create(product_id=shop.product.product_id, slug="pro", display_name="Pro")
    return shop


async def stock(shop: Shop) -> set[str]:
    """Licenses of every sort; their keys."""
    (tier,) = [tier async for tier in shop.client.tiers.list()]
    made = {status: await shop.issue_in(status) for status in STATES}
    for status, answer in made.items():
        if status not in {"revoked", "banned"}:
            await shop.client.licenses.update(answer.license.license_id, external_id=status)
    full = await shop.issue(
        key="My-Own-Key-0001", external_id="full", tier_id=tier.tier_id, customer_email="Ada@example.com",
        customer_name="Ada", display_name="Ada's", start_time=ago(days=3), expire_time=ahead(days=3),
        labels={"a": "b"}, metadata={"deep": {"x": [1, 2.5, None, "é"]}},
    )  # fmt: skip
    await shop.client.licenses.update(full.license.license_id, overrides=LicenseOverrides(max_uses=9))
    await shop.client.licenses.increment_uses(full.license.license_id, 3)
    bare = await shop.issue(external_id="bare", subject_ref="s-1")
    await shop.client.licenses.update(bare.license.license_id, expire_time=None)
    return {answer.key for answer in (*made.values(), full, bare)}


async def content(world: World) -> list[dict[str, Any]]:
    """What is said of each license, without what is another account's or mode's own."""
    found: list[dict[str, Any]] = []
    async for one in world.test.licenses.list():
        said = MessageToDict(one)
        for name in (
            "licenseId",
            "productId",
            "policyId",
            "tierId",
            "customerId",
            "updateTime",
            "etag",
            "revision",
            "checkInDueTime",
        ):
            said.pop(name, None)
        said["policy"] = (await world.test.policies.get(one.policy_id)).external_id
        said["tier"] = (await world.test.tiers.get(one.tier_id)).slug if one.tier_id else ""
        if one.customer_id:
            holder = await world.test.customers.get(one.customer_id)
            said["customer"] = (holder.email, holder.subject_ref, holder.display_name)
        found.append(said)
    return sorted(found, key=str)


async def test_what_was_exported_comes_back_the_same_in_another_account(
    suite: Suite, world: World, tmp_path: Path
) -> None:
    keys = await stock(await furnished(world))
    file = tmp_path / "licenses.jsonl"
    done = await run(suite, world.test_key, "export", file, "--with-keys")
    assert (done.status, mode_of(file), os.listdir(tmp_path)) == (0, 0o600, ["licenses.jsonl"]), done.err
    assert "7 licenses" in done.err
    assert {line["key"] for line in read(file)} == keys
    async with suite.world() as other:
        await furnished(other)
        back = await run(suite, other.test_key, "import", file)
        assert back.status == 0, back.err
        assert await content(other) == await content(world)
        for key in keys:
            assert (await other.test.validate(key=key)).code == (await world.test.validate(key=key)).code
        assert (await run(suite, other.test_key, "export", tmp_path / "again", "--with-keys")).status == 0
        assert sorted(map(str, read(tmp_path / "again"))) == sorted(map(str, read(file)))


async def test_keys_are_shown_only_where_they_are_asked_for_and_it_is_written_down(
    suite: Suite, world: World, tmp_path: Path
) -> None:
    shop = await furnished(world)
    made = await shop.issue()
    async with unchanged(suite, world):
        plain = await run(suite, world.test_key, "export")
        assert (await run(suite, world.test_key, "export", "--with-keys")).status == 1
    assert plain.status == 0
    assert made.key not in plain.out + plain.err
    assert '"policy_external_id":"basic"' in plain.out
    reader = await key_with(world.test, "licenses:read", "customers:read", "policies:read", "tiers:read")
    assert (await run(suite, reader, "export", tmp_path / "f")).status == 0
    refused = await run(suite, reader, "export", tmp_path / "g", "--with-keys")
    assert (refused.status, "CALLER_NOT_ALLOWED" in refused.err, (tmp_path / "g").exists()) == (1, True, False)
    assert (await run(suite, world.test_key, "export", tmp_path / "h", "--with-keys")).status == 0
    assert [e["type"] for e in await events(suite, made.license.license_id)] == [
        "license.created",
        "license.key.revealed",
    ]


async def test_keys_that_are_not_stored_are_counted(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await furnished(world, key_storage="HASH_ONLY")
    await shop.issue()
    done = await run(suite, world.test_key, "export", tmp_path / "f", "--with-keys")
    assert (done.status, "1 keys are not stored" in done.err) == (0, True)
    assert "key" not in read(tmp_path / "f")[0]


async def test_a_killed_export_goes_on(suite: Suite, world: World, tmp_path: Path) -> None:
    shop = await furnished(world)
    file, target = write(tmp_path / "in", many(shop.policy.policy_id, 2_000)), tmp_path / "out"
    part = tmp_path / "out.part"
    assert (await run(suite, world.test_key, "import", file, "--keys-out", tmp_path / "keys")).status == 0
    process = await start(suite, world.test_key, "export", target)
    await until(lambda: process.returncode is not None or size_of(part) > 0, 30)
    assert process.returncode is None, "it ended before it could be killed"
    process.kill()
    await process.wait()
    assert size_of(target) == 0
    with part.open("ab") as torn:
        torn.write(b'{"torn')
    done = await run(suite, world.test_key, "export", target)
    assert done.status == 0, done.err
    numbers = [line["metadata"]["number"] for line in read(target)]
    assert (len(numbers), set(numbers)) == (2_000, set(range(2_000)))
    assert sorted(os.listdir(tmp_path)) == ["in", "in.journal", "keys", "out"]


async def test_what_counts_from_a_first_machine_goes_with_its_expiry_and_what_waits_goes_without(
    suite: Suite, world: World, tmp_path: Path
) -> None:
    shop = await open_shop(world.test, expiration_basis="FROM_FIRST_ACTIVATION", duration=timedelta(days=30))
    await world.test.policies.update(shop.policy.policy_id, external_id="basic")
    counts, _ = [(await shop.issue(external_id=name)).license for name in ("counts", "waits")]
    first = ago(days=2)
    await has_machines(suite, world, counts.license_id, first)
    file = tmp_path / "licenses.jsonl"
    assert (await run(suite, world.test_key, "export", file, "--with-keys")).status == 0
    lines = {line["external_id"]: line for line in read(file)}
    assert not {"expire_time", "perpetual"} & lines["waits"].keys()
    assert "perpetual" not in lines["counts"]
    async with suite.world() as other:
        there = await open_shop(other.test, expiration_basis="FROM_FIRST_ACTIVATION", duration=timedelta(days=30))
        await other.test.policies.update(there.policy.policy_id, external_id="basic")
        assert (await run(suite, other.test_key, "import", file)).status == 0
        found = {one.external_id: one async for one in other.test.licenses.list()}
        assert found["counts"].expire_time == at(first + timedelta(days=30))
        assert (found["waits"].HasField("expire_time"), found["waits"].expiry_anchored) == (False, False)
