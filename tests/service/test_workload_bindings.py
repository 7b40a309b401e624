"""Workload bindings: operators make, read, change and delete them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from lictor import Aborted, AlreadyExists, AsyncLictor, NotFound
from lictor.account.v1 import account_service_pb2 as pb
from lictor.common.v1.common_pb2 import Mode

from tests.helpers.builders import assert_same, events, refused, send, unchanged, uuid
from tests.helpers.echo import refusal
from tests.helpers.suite import Suite, World

SCOPES = ["keys:read", "licenses:validate"]


@pytest_asyncio.fixture(loop_scope="session")
async def operator(suite: Suite) -> AsyncGenerator[AsyncLictor]:
    async with suite.client(suite.operator_key) as client:
        yield client


@pytest.fixture(name="domain")
def _domain() -> str:
    """A trust domain of the test's own: patterns are unique in the whole deployment."""
    return f"{uuid()}.test"


async def bind(operator: AsyncLictor, world: World, pattern: str, **more: Any) -> pb.WorkloadBinding:
    wanted: dict[str, Any] = {"mode": "TEST", "scopes": SCOPES, **more}
    made = await operator.workload_bindings.create(spiffe_id_pattern=pattern, account_id=world.account_id, **wanted)
    return made.workload_binding


async def test_a_binding_is_what_was_asked_for(suite: Suite, operator: AsyncLictor, world: World, domain: str) -> None:
    external_id = uuid()
    made = await operator.workload_bindings.create(
        spiffe_id_pattern=f"spiffe://{domain}/ns/billing/*",
        account_id=world.account_id,
        mode="LIVE",
        scopes=["licenses:validate", "keys:read", "licenses:validate"],
        display_name="billing",
        external_id=external_id,
    )
    binding = made.workload_binding
    assert binding.workload_binding_id.startswith("wlb_")
    assert (binding.spiffe_id_pattern, binding.account_id) == (f"spiffe://{domain}/ns/billing/*", world.account_id)
    assert (binding.mode, binding.display_name, binding.external_id) == (Mode.LIVE, "billing", external_id)
    assert (list(binding.scopes), binding.revision) == (SCOPES, 1)
    assert binding.create_time == binding.update_time
    assert await operator.workload_bindings.get(binding.workload_binding_id) == binding
    assert await operator.workload_bindings.get(external_id=external_id) == binding
    [event] = await events(suite, binding.workload_binding_id)
    assert (event["type"], event["account_id"], event["mode"]) == (
        "workload_binding.created",
        world.account_id,
        "LIVE",
    )
    assert event["actor"] == (await operator.whoami()).key_id
    assert event["data"]["spiffe_id_pattern"] == binding.spiffe_id_pattern
    assert event["in_outbox"]


async def test_a_retry_makes_one_binding(operator: AsyncLictor, world: World, domain: str) -> None:
    wanted: dict[str, Any] = {
        "spiffe_id_pattern": f"spiffe://{domain}/a", "account_id": world.account_id, "mode": "TEST", "scopes": SCOPES,
        "request_id": uuid(),
    }  # fmt: skip
    first = await operator.workload_bindings.create(**wanted)
    assert_same(await operator.workload_bindings.create(**wanted), first)
    wanted["request_id"] = uuid()
    with pytest.raises(AlreadyExists):
        await operator.workload_bindings.create(**wanted)


def request(**more: Any) -> pb.CreateWorkloadBindingRequest:
    """Good but for what is given."""
    good: dict[str, Any] = {
        "spiffe_id_pattern": "spiffe://d/a", "account_id": "acc_1", "mode": Mode.TEST, "scopes": SCOPES,
    }  # fmt: skip
    return pb.CreateWorkloadBindingRequest(**good | more)


BAD: list[tuple[Message, list[tuple[str, str]]]] = [
    (
        pb.CreateWorkloadBindingRequest(),
        [("spiffe_id_pattern", "REQUIRED"), ("account_id", "REQUIRED"), ("mode", "REQUIRED"), ("scopes", "REQUIRED")],
    ),
    (request(request_id="x"), [("request_id", "UUID_INVALID")]),
    (request(display_name="x" * 256), [("display_name", "LENGTH_OUT_OF_RANGE")]),
    (request(external_id="x" * 256), [("external_id", "LENGTH_OUT_OF_RANGE")]),
    (request(account_id="x" * 65), [("account_id", "LENGTH_OUT_OF_RANGE")]),
    (request(mode=3), [("mode", "ENUM_UNKNOWN")]),
    (request(scopes=["keys:read", "accounts:read", "workloads:write"]), [
        ("scopes[1]", "SCOPE_UNKNOWN"), ("scopes[2]", "SCOPE_UNKNOWN"),
    ]),
    *(
        (request(spiffe_id_pattern=bad), [("spiffe_id_pattern", "SPIFFE_ID_PATTERN_INVALID")])
        for bad in ("spiffe://d", "spiffe://d/", "spiffe://D/a", "spiffe://d/*/a", "spiffe://d/a*", "https://d/a", "*",
                    "spiffe://d/../a", "spiffe://d/" + "a" * 2048)
    ),
    (pb.GetWorkloadBindingRequest(), [("workload_binding_id", "EXACTLY_ONE")]),
    (pb.ListWorkloadBindingsRequest(page_size=-1, account_id="x" * 65), [
        ("page_size", "OUT_OF_RANGE"), ("account_id", "LENGTH_OUT_OF_RANGE"),
    ]),
    (pb.UpdateWorkloadBindingRequest(), [("workload_binding_id", "REQUIRED"), ("update_mask", "REQUIRED")]),
    (
        pb.UpdateWorkloadBindingRequest(workload_binding_id="wlb_1", update_mask=FieldMask(paths=["scopes", "mode"])),
        [("update_mask", "FIELD_UNKNOWN"), ("scopes", "REQUIRED")],
    ),
    (
        pb.UpdateWorkloadBindingRequest(workload_binding_id="wlb_1", scopes=["x"], display_name="x" * 256),
        [("display_name", "LENGTH_OUT_OF_RANGE"), ("scopes[0]", "SCOPE_UNKNOWN")],
    ),
    (
        pb.DeleteWorkloadBindingRequest(reason="x" * 256, etag="x" * 65),
        [("workload_binding_id", "REQUIRED"), ("etag", "LENGTH_OUT_OF_RANGE"), ("reason", "LENGTH_OUT_OF_RANGE")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "violations"), BAD)
async def test_every_bad_field_is_named(suite: Suite, bad: Message, violations: list[tuple[str, str]]) -> None:
    async with unchanged(suite):
        error = await refused(suite, bad, suite.operator_key)
    assert (error.reason, error.violations) == ("FIELD_INVALID", violations)


@pytest.mark.parametrize("account_id", ["acc_nope", "operator"])
async def test_an_account_that_is_not_there(suite: Suite, account_id: str) -> None:
    async with unchanged(suite):
        error = await refused(suite, request(account_id=account_id), suite.operator_key)
    assert (error.reason, dict(error.info.metadata)) == ("ACCOUNT_NOT_FOUND", {"id": account_id})


async def test_a_binding_that_is_not_there(operator: AsyncLictor) -> None:
    bindings = operator.workload_bindings
    for attempt in (
        bindings.get("wlb_nope"),
        bindings.get(external_id="wlb_nope"),
        bindings.update("wlb_nope", display_name="x"),
        bindings.delete("wlb_nope"),
    ):
        with pytest.raises(NotFound) as caught:
            await attempt
        assert (caught.value.reason, caught.value.metadata) == ("WORKLOAD_BINDING_NOT_FOUND", {"id": "wlb_nope"})


async def test_external_ids_are_unique_in_the_deployment(
    suite: Suite, operator: AsyncLictor, world: World, domain: str
) -> None:
    name = uuid()
    await bind(operator, world, f"spiffe://{domain}/a", external_id=name)
    async with suite.world() as other:
        with pytest.raises(AlreadyExists) as caught:
            await bind(operator, other, f"spiffe://{domain}/b", external_id=name)
    assert caught.value.reason == "EXTERNAL_ID_TAKEN"


async def test_a_pattern_that_is_taken_does_not_tell_by_whom(
    suite: Suite, operator: AsyncLictor, world: World, domain: str
) -> None:
    await bind(operator, world, f"spiffe://{domain}/ns/*")
    async with suite.world() as other:
        told: set[str] = set()
        for account_id, pattern in (
            (world.account_id, "/ns/*"),
            (other.account_id, "/ns/*"),
            (other.account_id, "/ns/a"),
            (other.account_id, "/*"),
        ):
            taken = request(spiffe_id_pattern=f"spiffe://{domain}{pattern}", account_id=account_id, mode=Mode.LIVE)
            async with unchanged(suite, world, other):
                error = await refused(suite, taken, suite.operator_key)
            assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SPIFFE_ID_PATTERN_TAKEN")
            assert dict(error.info.metadata) == {"field": "spiffe_id_pattern"}
            told.add(error.message)
        assert len(told) == 1
        await bind(operator, other, f"spiffe://{domain}/ns")  # the star stands for at least one segment
        await bind(operator, world, f"spiffe://{domain}/ns/a", mode="LIVE")


async def at_once(suite: Suite, requests: Sequence[Message]) -> Counter[str]:
    """How the operator's calls end, all begun together."""

    async def outcome(one: Message) -> str:
        try:
            await send(suite, one, suite.operator_key)
        except grpc.aio.AioRpcError as error:
            return refusal(error).reason
        return "OK"

    return Counter(await asyncio.gather(*map(outcome, requests)))


async def test_one_of_two_accounts_wins_a_race(suite: Suite, operator: AsyncLictor, world: World, domain: str) -> None:
    async with suite.world() as other:
        mine = [request(spiffe_id_pattern=f"spiffe://{domain}/a/{n}", account_id=world.account_id) for n in range(6)]
        theirs = [request(spiffe_id_pattern=f"spiffe://{domain}/a/*", account_id=other.account_id)] * 6
        ended = await at_once(suite, [one for pair in zip(mine, theirs, strict=True) for one in pair])
        assert ended in (
            {"OK": 6, "SPIFFE_ID_PATTERN_TAKEN": 6},  # all of ours, none of theirs
            {"OK": 1, "SPIFFE_ID_PATTERN_TAKEN": 11},
        )
        held = [
            [one async for one in operator.workload_bindings.list(account_id=account_id)]
            for account_id in (world.account_id, other.account_id)
        ]
        assert sorted(map(len, held)) in ([0, 1], [0, 6])


async def test_one_of_many_equal_ones_wins(suite: Suite, world: World, domain: str) -> None:
    wanted = request(spiffe_id_pattern=f"spiffe://{domain}/a", account_id=world.account_id)
    assert await at_once(suite, [wanted] * 8) == {"OK": 1, "SPIFFE_ID_PATTERN_TAKEN": 7}


async def test_an_update_changes_what_it_names(suite: Suite, operator: AsyncLictor, world: World, domain: str) -> None:
    made = await bind(operator, world, f"spiffe://{domain}/a", display_name="old")
    bindings = operator.workload_bindings
    renamed = (await bindings.update(made.workload_binding_id, display_name="new", etag=made.etag)).workload_binding
    assert (renamed.display_name, list(renamed.scopes), renamed.revision) == ("new", SCOPES, 2)
    narrowed = (await bindings.update(made.workload_binding_id, scopes=["keys:read"])).workload_binding
    assert (narrowed.display_name, list(narrowed.scopes), narrowed.revision) == ("new", ["keys:read"], 3)
    cleared = (await bindings.update(made.workload_binding_id, display_name=None)).workload_binding
    assert (cleared.display_name, list(cleared.scopes)) == ("", ["keys:read"])
    assert await bindings.get(made.workload_binding_id) == cleared
    assert cleared.spiffe_id_pattern == made.spiffe_id_pattern
    async with unchanged(suite, world):
        with pytest.raises(Aborted) as caught:
            await bindings.update(made.workload_binding_id, display_name="x", etag=made.etag)
        assert caught.value.reason == "ETAG_MISMATCH"
        with pytest.raises(Aborted):
            await bindings.delete(made.workload_binding_id, etag=made.etag)


async def test_a_deleted_binding_is_gone_and_its_pattern_free(
    suite: Suite, operator: AsyncLictor, world: World, domain: str
) -> None:
    made = await bind(operator, world, f"spiffe://{domain}/a/*")
    await operator.workload_bindings.delete(made.workload_binding_id, etag=made.etag, reason="moved")
    with pytest.raises(NotFound):
        await operator.workload_bindings.get(made.workload_binding_id)
    last = (await events(suite, made.workload_binding_id))[-1]
    assert (last["type"], last["reason"]) == ("workload_binding.deleted", "moved")
    async with suite.world() as other:
        await bind(operator, other, f"spiffe://{domain}/a/b")


async def test_of_two_deletions_at_once_one_finds_it(
    suite: Suite, operator: AsyncLictor, world: World, domain: str
) -> None:
    made = await bind(operator, world, f"spiffe://{domain}/a")
    deletion = pb.DeleteWorkloadBindingRequest(workload_binding_id=made.workload_binding_id)
    assert await at_once(suite, [deletion] * 8) == {"OK": 1, "WORKLOAD_BINDING_NOT_FOUND": 7}
    assert len(await events(suite, made.workload_binding_id)) == 2


async def test_lists_are_of_an_account_or_of_all(
    suite: Suite, operator: AsyncLictor, world: World, domain: str
) -> None:
    mine = [await bind(operator, world, f"spiffe://{domain}/{n}", mode=mode) for n, mode in enumerate(["TEST", "LIVE"])]
    async with suite.world() as other:
        theirs = await bind(operator, other, f"spiffe://{domain}/other")
        bindings = operator.workload_bindings
        assert [one async for one in bindings.list(account_id=world.account_id, page_size=1)] == mine
        assert [one async for one in bindings.list(account_id="acc_nope")] == []
        everything = [one async for one in bindings.list(page_size=2)]
        ids = [one.workload_binding_id for one in everything]
        assert ids == sorted(set(ids)), "each once, oldest first"
        assert all(one in everything for one in [*mine, theirs])
        token = (await bindings.page(account_id=world.account_id, page_size=1)).next_page_token
        foreign = pb.ListWorkloadBindingsRequest(account_id=other.account_id, page_token=token)
        assert (await refused(suite, foreign, suite.operator_key)).reason == "PAGE_TOKEN_INVALID"
