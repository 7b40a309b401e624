"""Callers without a key: who they are is what the binding of the SPIFFE ID in their certificate says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from lictor import AsyncLictor
from lictor.account.v1 import account_service_pb2 as pb
from lictor.common.v1.common_pb2 import Mode as ModePb

from shared.clock import SystemClock
from shared.errors import DomainError, Reason
from shared.rpc.auth import Authenticator
from shared.tenancy import Mode, Principal, PrincipalKind
from tests.helpers.builders import events, uuid
from tests.helpers.chained import Chained, chained
from tests.helpers.lease import lease_passes
from tests.helpers.suite import Suite, World

SCOPES = frozenset({"keys:read", "keys:write", "licenses:validate"})


@dataclass(frozen=True)
class Door:
    """The license service on the suite's record, without a transport: its authenticator and its routes."""

    process: Chained
    operator: AsyncLictor
    world: World
    domain: str

    @property
    def authenticator(self) -> Authenticator:
        return self.process.authenticator

    def id(self, path: str) -> str:
        return f"spiffe://{self.domain}{path}"

    async def bind(self, path: str, mode: str = "TEST", scopes: frozenset[str] = SCOPES) -> str:
        made = await self.operator.workload_bindings.create(
            spiffe_id_pattern=self.id(path), account_id=self.world.account_id, mode=mode, scopes=sorted(scopes)
        )
        return made.workload_binding.workload_binding_id

    async def enter(self, path: str) -> Principal:
        return await self.authenticator.authenticate(None, self.id(path))

    async def refused(self, authorization: str | None, peer_identity: str) -> str:
        with pytest.raises(DomainError) as caught:
            await self.authenticator.authenticate(authorization, peer_identity)
        assert caught.value.reason is Reason.CREDENTIALS_INVALID
        return caught.value.message

    async def call(self, method: str, request: Any, path: str) -> bytes:
        """One call through the whole chain, as a transport makes it of a caller with a certificate."""
        full = f"/lictor.account.v1.AccountService/{method}"
        return await self.process.call(full, request.SerializeToString(), None, self.id(path))


@pytest_asyncio.fixture(loop_scope="session", name="door")
async def _door(suite: Suite, world: World) -> AsyncGenerator[Door]:
    async with chained(suite.settings, SystemClock()) as process, suite.client(suite.operator_key) as operator:
        yield Door(process, operator, world, f"{uuid()}.test")


async def test_a_binding_says_account_mode_and_scopes(door: Door) -> None:
    binding_id = await door.bind("/ns/billing/api", "LIVE")
    assert await door.enter("/ns/billing/api") == Principal(
        PrincipalKind.WORKLOAD, door.world.account_id, Mode.LIVE, binding_id, SCOPES, None
    )


async def test_a_star_stands_for_one_or_more_segments(door: Door) -> None:
    binding_id = await door.bind("/ns/*")
    for path in ("/ns/a", "/ns/a/b", "/ns/a/b/c"):
        assert (await door.enter(path)).key_id == binding_id
    for path in ("/ns", "/nsx", "/nsx/a", "/NS/a", "/a/ns/b", "/a"):
        await door.refused(None, door.id(path))


async def test_the_more_exact_pattern_decides(door: Door) -> None:
    paths = ["/*", "/ns/*", "/ns/x/*", "/ns/x/y", "/ns/x"]
    modes = ["TEST", "LIVE", "TEST", "LIVE", "LIVE"]
    ids = {path: await door.bind(path, mode) for path, mode in zip(paths, modes, strict=True)}
    for path, decides in (
        ("/a", "/*"),
        ("/ns", "/*"),
        ("/ns/a", "/ns/*"),
        ("/ns/x", "/ns/x"),
        ("/ns/x/a", "/ns/x/*"),
        ("/ns/x/y", "/ns/x/y"),
        ("/ns/x/y/z", "/ns/x/*"),
    ):
        found = await door.enter(path)
        assert (found.key_id, found.mode) == (ids[decides], Mode(modes[paths.index(decides)])), path


async def test_a_deleted_binding_lets_nobody_in_from_the_next_call_on(door: Door) -> None:
    wide, narrow = await door.bind("/*"), await door.bind("/a", "LIVE")
    assert (await door.enter("/a")).key_id == narrow
    await door.operator.workload_bindings.delete(narrow)
    assert (await door.enter("/a")).key_id == wide
    await door.operator.workload_bindings.delete(wide)
    await door.refused(None, door.id("/a"))


async def test_new_scopes_hold_from_the_next_call_on(door: Door) -> None:
    binding_id = await door.bind("/a")
    await door.operator.workload_bindings.update(binding_id, scopes=["keys:read"])
    assert (await door.enter("/a")).scopes == {"keys:read"}


async def test_a_suspended_accounts_workloads_are_refused(door: Door) -> None:
    await door.bind("/*")
    await door.operator.accounts.suspend(door.world.account_id)
    await door.refused(None, door.id("/a"))
    await door.operator.accounts.reinstate(door.world.account_id)
    await lease_passes()
    assert (await door.enter("/a")).account_id == door.world.account_id


async def test_a_name_in_a_header_is_no_certificate(door: Door) -> None:
    """Not even once the process knows the workload by heart."""
    await door.bind("/a")
    for _ in range(4):
        await door.enter("/a")
    for header in (door.id("/a"), f"Bearer {door.id('/a')}", f"certificate {door.id('/a')}"):
        await door.refused(header, "")
    key = f"Bearer {door.world.test_key}"
    for _ in range(4):
        await door.authenticator.authenticate(key, "")
    for name in (key, f"header {key}"):
        await door.refused(None, name)


async def test_authorization_counts_alone_where_it_is_sent(door: Door) -> None:
    await door.bind("/a", "LIVE")
    keyed = await door.authenticator.authenticate(f"Bearer {door.world.test_key}", door.id("/a"))
    assert (keyed.kind, keyed.mode) == (PrincipalKind.SECRET_KEY, Mode.TEST)
    for bad in ("", "Bearer", "Bearer sk_test_nope", f"Basic {door.world.test_key}"):
        await door.refused(bad, door.id("/a"))


async def test_every_refusal_has_the_same_words(door: Door) -> None:
    await door.bind("/a/*")
    identities = (
        "", door.id("/b"), door.id("/a/b/"), door.id(""), door.id("/"), door.id("/a/*"), door.id("/a/.."),
        door.id("/a/b").upper(), door.id("/a/b").replace("spiffe", "https"), "spiffe://other.test/a/b",
        door.id("/a/b%00"), "urn:uuid:1", door.id("/a/" + "b" * 2048),
    )  # fmt: skip
    told = {await door.refused(None, identity) for identity in identities}
    told.add(await door.refused("Bearer sk_test_nope", ""))
    assert len(told) == 1
    assert "Bearer" in told.pop()


async def test_an_id_of_very_many_segments(door: Door) -> None:
    binding_id = await door.bind("/*")
    assert (await door.enter("/a" * 900)).key_id == binding_id


async def test_whoami_tells_a_workload_who_it_is(door: Door) -> None:
    binding_id = await door.bind("/a/*")
    who = pb.WhoAmIResponse.FromString(await door.call("WhoAmI", pb.WhoAmIRequest(), "/a/b"))
    assert (who.kind, who.account_id, who.mode) == (
        pb.PrincipalKind.WORKLOAD,
        door.world.account_id,
        ModePb.TEST,
    )
    assert (who.key_id, who.spiffe_id, set(who.scopes)) == (binding_id, door.id("/a/b"), SCOPES)
    assert not who.HasField("expire_time")
    assert (await door.world.test.whoami()).spiffe_id == ""


async def test_a_workload_works_in_its_account_within_its_scopes(door: Door, suite: Suite) -> None:
    binding_id = await door.bind("/a", "LIVE")
    request = pb.CreateApiKeyRequest(scopes=["keys:read"], display_name="made by a workload")
    made = pb.CreateApiKeyResponse.FromString(await door.call("CreateApiKey", request, "/a")).api_key
    assert await door.world.live.api_keys.get(made.api_key_id) == made
    [event] = await events(suite, made.api_key_id)
    assert event["actor"] == binding_id
    for method, refused in (
        ("CreateApiKey", pb.CreateApiKeyRequest(scopes=["products:read"])),
        ("ListWorkloadBindings", pb.ListWorkloadBindingsRequest()),
    ):
        with pytest.raises(DomainError) as caught:
            await door.call(method, refused, "/a")
        assert caught.value.reason is Reason.CALLER_NOT_ALLOWED
