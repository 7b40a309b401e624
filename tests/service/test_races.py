"""Calls at the same moment: one wins, the others are told why, and the record is never between two states."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any

import grpc.aio
from google.protobuf.message import Message
from lictor.account.v1.account_service_pb2 import CreateApiKeyRequest, RotateApiKeyRequest
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import license_service_pb2 as pb

from tests.helpers.builders import assert_same, events, open_shop, send, uuid
from tests.helpers.echo import refusal
from tests.helpers.suite import Suite, World

N = 16


async def outcome(call: Awaitable[Any]) -> str:
    """OK, or the reason of the refusal."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return refusal(error).reason
    return "OK"


async def at_once(suite: Suite, world: World, requests: Sequence[Message]) -> Counter[str]:
    """How the calls end, all begun together."""
    return Counter(await asyncio.gather(*(outcome(send(suite, one, world.test_key)) for one in requests)))


async def count(suite: Suite, statement: str, *arguments: object) -> int:
    async with suite.admin() as conn:
        return await conn.fetchval(statement, *arguments)


async def test_one_of_many_suspensions_wins(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    ended = await at_once(suite, world, [pb.SuspendLicenseRequest(license_id=license_id)] * N)
    assert ended == {"OK": 1, "STATE_TRANSITION_INVALID": N - 1}
    assert [event["type"] for event in await events(suite, license_id)] == ["license.created", "license.suspended"]
    assert (await world.test.licenses.get(license_id)).revision == 2


async def test_opposite_actions_leave_one_of_the_two_states(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    kinds = (pb.RevokeLicenseRequest, pb.BanLicenseRequest)
    ended = await at_once(suite, world, [kind(license_id=license_id) for kind in kinds * (N // 2)])
    assert ended == {"OK": 1, "STATE_TRANSITION_INVALID": N - 1}
    assert len(await events(suite, license_id)) == 2


async def test_renewals_add_up(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test, duration=timedelta(days=2))
    before = (await shop.issue()).license
    assert await at_once(suite, world, [pb.RenewLicenseRequest(license_id=before.license_id)] * N) == {"OK": N}
    after = await world.test.licenses.get(before.license_id)
    assert after.expire_time.ToDatetime() - before.expire_time.ToDatetime() == N * timedelta(days=2)
    assert [event["subject_seq"] for event in await events(suite, before.license_id)] == list(range(1, N + 2))


async def test_one_customer_for_one_email(suite: Suite, world: World) -> None:
    policy_id = (await open_shop(world.test)).policy.policy_id
    emails = ["ada@example.com", "Ada@Example.COM"] * (N // 2)
    requests = [pb.CreateLicenseRequest(policy_id=policy_id, customer=pb.CustomerRef(email=email)) for email in emails]
    assert await at_once(suite, world, requests) == {"OK": N}
    one = "SELECT count(*) FROM license.customer WHERE account_id = $1"
    assert await count(suite, one, world.account_id) == 1
    holders = {found.customer_id async for found in world.test.licenses.list()}
    assert len(holders) == 1
    assert len(await events(suite, holders.pop())) == 1


async def test_one_customer_for_one_subject_ref(suite: Suite, world: World) -> None:
    policy_id = (await open_shop(world.test)).policy.policy_id
    ref = pb.CustomerRef(subject_ref="user-1")
    ended = await at_once(suite, world, [pb.CreateLicenseRequest(policy_id=policy_id, customer=ref)] * N)
    assert ended == {"OK": N}
    assert await count(suite, "SELECT count(*) FROM license.customer WHERE account_id = $1", world.account_id) == 1


async def test_one_license_for_one_key(suite: Suite, world: World) -> None:
    policy_id = (await open_shop(world.test)).policy.policy_id
    keys = ["BOIL-0001", "boil-oool"] * (N // 2)
    ended = await at_once(suite, world, [pb.CreateLicenseRequest(policy_id=policy_id, key=key) for key in keys])
    assert ended == {"OK": 1, "KEY_TAKEN": N - 1}
    assert await count(suite, "SELECT count(*) FROM license.license WHERE account_id = $1", world.account_id) == 1


async def test_one_resource_for_one_external_id(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    for request in (
        pb.CreateLicenseRequest(policy_id=shop.policy.policy_id, external_id="x"),
        catalog.CreatePolicyRequest(
            product_id=shop.product.product_id, display_name="x", max_machines=1, external_id="x"
        ),
        CreateApiKeyRequest(scopes=["keys:read"], external_id="x"),
    ):
        assert await at_once(suite, world, [request] * N) == {"OK": 1, "EXTERNAL_ID_TAKEN": N - 1}
    product = catalog.CreateProductRequest(code="NEW", display_name="x")
    assert await at_once(suite, world, [product] * N) == {"OK": 1, "CODE_TAKEN": N - 1}


async def test_one_license_for_one_request_id(suite: Suite, world: World) -> None:
    policy_id = (await open_shop(world.test)).policy.policy_id
    request = pb.CreateLicenseRequest(policy_id=policy_id, request_id=uuid())
    answers = await asyncio.gather(*(send(suite, request, world.test_key) for _ in range(N)))
    first = min(answers, key=lambda answer: answer.effective_time.ToNanoseconds())
    for answer in answers:
        assert_same(answer, first)
    assert await count(suite, "SELECT count(*) FROM license.license WHERE account_id = $1", world.account_id) == 1


async def test_one_of_many_updates_with_one_etag_wins(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    license_ = (await shop.issue()).license
    many: list[tuple[Message, str]] = [
        (pb.UpdateLicenseRequest(license_id=license_.license_id, etag=license_.etag), license_.license_id),
        (catalog.UpdatePolicyRequest(policy_id=shop.policy.policy_id, etag=shop.policy.etag), shop.policy.policy_id),
        (
            catalog.UpdateProductRequest(product_id=shop.product.product_id, etag=shop.product.etag),
            shop.product.product_id,
        ),
    ]
    for request, resource_id in many:
        setattr(request, "display_name", "mine")  # noqa: B010 - each of these requests has a display_name
        assert await at_once(suite, world, [request] * N) == {"OK": 1, "ETAG_MISMATCH": N - 1}
        assert len(await events(suite, resource_id)) == 2


async def test_a_key_is_replaced_once(suite: Suite, world: World) -> None:
    key = (await world.test.api_keys.create(scopes=["keys:read"])).api_key
    ended = await at_once(suite, world, [RotateApiKeyRequest(api_key_id=key.api_key_id)] * N)
    assert ended == {"OK": 1, "STATE_TRANSITION_INVALID": N - 1}
    keys = [found async for found in world.test.api_keys.list()]
    assert len(keys) == 3, "the account's first, the old and the new"


async def test_there_is_never_a_license_without_a_policy(suite: Suite, world: World) -> None:
    product_id = (await open_shop(world.test)).product.product_id
    for turn in range(12):
        made = await world.test.policies.create(product_id=product_id, display_name="x", max_machines=1)
        policy_id = made.policy.policy_id
        requests: list[Message] = [pb.CreateLicenseRequest(policy_id=policy_id)] * 3
        requests.insert(turn % 4, catalog.DeletePolicyRequest(policy_id=policy_id))
        ended = await at_once(suite, world, requests)
        there = await count(suite, "SELECT count(*) FROM license.policy WHERE policy_id = $1", policy_id)
        under = await count(suite, "SELECT count(*) FROM license.license WHERE policy_id = $1", policy_id)
        if there:
            assert (ended["RESOURCE_IN_USE"], ended["OK"]) == (1, under) == (1, 3)
        else:
            assert (ended["OK"], ended["POLICY_NOT_FOUND"], under) == (1, 3, 0)


async def test_there_is_never_a_policy_without_a_product(suite: Suite, world: World) -> None:
    for turn in range(8):
        product_id = (await world.test.products.create(code=f"P{turn}", display_name="x")).product.product_id
        create = catalog.CreatePolicyRequest(product_id=product_id, display_name="x", max_machines=1)
        requests: list[Message] = [create] * 3
        requests.insert(turn % 4, catalog.DeleteProductRequest(product_id=product_id))
        ended = await at_once(suite, world, requests)
        there = await count(suite, "SELECT count(*) FROM license.product WHERE product_id = $1", product_id)
        under = await count(suite, "SELECT count(*) FROM license.policy WHERE product_id = $1", product_id)
        assert ended == ({"OK": 3, "RESOURCE_IN_USE": 1} if there else {"OK": 1, "PRODUCT_NOT_FOUND": 3})
        assert under == (3 if there else 0)


async def test_a_license_is_deleted_once_whatever_else_happens_to_it(suite: Suite, world: World) -> None:
    license_id = (await (await open_shop(world.test)).issue()).license.license_id
    requests: list[Message] = [pb.DeleteLicenseRequest(license_id=license_id)] * 4
    requests += [pb.RenewLicenseRequest(license_id=license_id)] * 8
    ended = await asyncio.gather(*(outcome(send(suite, one, world.test_key)) for one in requests))
    assert Counter(ended[:4]) == {"OK": 1, "LICENSE_NOT_FOUND": 3}
    assert set(ended[4:]) <= {"OK", "LICENSE_NOT_FOUND"}
    told = await events(suite, license_id)
    assert [event["subject_seq"] for event in told] == list(range(1, len(told) + 1))
    assert told[-1]["type"] == "license.deleted"
    assert len(told) == 2 + Counter(ended[4:])["OK"]
