"""Every reason of the vocabulary is raised somewhere, over the wire, with its code and its metadata.

`PROVOKED` tells for each reason how to get it; a reason that nobody provokes fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from lictor.account.v1 import account_service_pb2 as account
from lictor.common.v1.common_pb2 import Consistency, LicenseSelector, Mode, RevisionToken
from lictor.common.v1.error_reason_pb2 import ErrorReason
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import customer_service_pb2 as customers
from lictor.license.v1 import license_service_pb2 as pb
from lictor.license.v1 import token_service_pb2 as tokens
from lictor.license.v1.validation_service_pb2 import ValidateLicenseRequest
from lictor.machine.v1 import activation_service_pb2 as activations
from lictor.machine.v1 import machine_service_pb2 as machines

from shared.crypto import sealing
from shared.db import pool
from shared.embedded.postgres import EmbeddedPostgres
from shared.errors import CODES, Code, Reason
from tests.helpers.builders import (
    Shop,
    blocked_backend,
    held,
    key_with,
    open_shop,
    refused,
    refused_by,
    refused_for_time,
    send,
    unchanged,
    uuid,
)
from tests.helpers.echo import Refusal, as_is
from tests.helpers.suite import Suite, World, bearer, running_suite
from tests.helpers.watching import watching

REASONS = sorted(name for name, number in ErrorReason.Reason.items() if number)
LOCK_A_LICENSE = "SELECT 1 FROM license.license WHERE license_id = $1 FOR UPDATE"


@dataclass(frozen=True)
class Scene:
    """What a provocation has at hand."""

    suite: Suite
    world: World
    shop: Shop
    postgres: EmbeddedPostgres
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    async def refused(self, request: Message, key: str = "") -> Refusal:
        return await refused(self.suite, request, key or self.world.test_key)

    async def customer_id(self, email: str) -> str:
        return (await self.shop.issue(customer_email=email)).license.customer_id

    async def issue(self, **more: Any) -> str:
        return (await self.shop.issue(**more)).license.license_id


Provocation = Callable[[Scene], Awaitable[Refusal]]
PROVOKED: dict[str, tuple[Provocation, set[str]]] = {}
"""Reason -> what provokes it, and the metadata keys that come with it."""


def provokes(reason: Reason, *keys: str) -> Callable[[Provocation], Provocation]:
    def keep(provocation: Provocation) -> Provocation:
        assert reason.value not in PROVOKED
        PROVOKED[reason.value] = (provocation, set(keys))
        return provocation

    return keep


@provokes(Reason.FIELD_INVALID, "violations")
async def field_invalid(scene: Scene) -> Refusal:
    return await scene.refused(catalog.CreateProductRequest())


@provokes(Reason.REQUEST_ID_REUSED, "method")
async def request_id_reused(scene: Scene) -> Refusal:
    request_id = uuid()
    await scene.issue(request_id=request_id)
    return await scene.refused(pb.CreateLicenseRequest(policy_id="pol_other", request_id=request_id))


@provokes(Reason.PAGE_TOKEN_INVALID)
async def page_token_invalid(scene: Scene) -> Refusal:
    return await scene.refused(pb.ListLicensesRequest(page_token="x"))


@provokes(Reason.REVISION_TOKEN_INVALID)
async def revision_token_invalid(scene: Scene) -> Refusal:
    consistency = Consistency(at_least_as_fresh=Consistency.AtLeastAsFresh(revision_token=RevisionToken(token="x")))
    request = ValidateLicenseRequest(license=LicenseSelector(license_id="lic_1"), consistency=consistency)
    return await scene.refused(request)


@provokes(Reason.ACCOUNT_NOT_FOUND, "id")
async def account_not_found(scene: Scene) -> Refusal:
    return await scene.refused(account.GetAccountRequest(account_id="acc_1"), scene.suite.operator_key)


@provokes(Reason.API_KEY_NOT_FOUND, "id")
async def api_key_not_found(scene: Scene) -> Refusal:
    return await scene.refused(account.GetApiKeyRequest(api_key_id="key_1"))


@provokes(Reason.PRODUCT_NOT_FOUND, "id")
async def product_not_found(scene: Scene) -> Refusal:
    return await scene.refused(catalog.GetProductRequest(product_id="prod_1"))


@provokes(Reason.POLICY_NOT_FOUND, "id")
async def policy_not_found(scene: Scene) -> Refusal:
    return await scene.refused(catalog.GetPolicyRequest(policy_id="pol_1"))


@provokes(Reason.TIER_NOT_FOUND, "id")
async def tier_not_found(scene: Scene) -> Refusal:
    return await scene.refused(catalog.GetTierRequest(tier_id="tier_1"))


@provokes(Reason.SIGNING_KEY_NOT_FOUND, "id")
async def signing_key_not_found(scene: Scene) -> Refusal:
    return await scene.refused(tokens.RevokeSigningKeyRequest(signing_key_id="kid_1"))


@provokes(Reason.KEY_SET_NOT_FOUND, "id")
async def key_set_not_found(scene: Scene) -> Refusal:
    return await scene.refused(tokens.GetJsonWebKeySetRequest(key_set_id="kset_1"))


@provokes(Reason.CUSTOMER_NOT_FOUND, "id")
async def customer_not_found(scene: Scene) -> Refusal:
    request = pb.CreateLicenseRequest(policy_id=scene.shop.policy.policy_id)
    request.customer.customer_id = "cus_1"
    return await scene.refused(request)


@provokes(Reason.LICENSE_NOT_FOUND, "id")
async def license_not_found(scene: Scene) -> Refusal:
    return await scene.refused(pb.GetLicenseRequest(license_id="lic_1"))


@provokes(Reason.WORKLOAD_BINDING_NOT_FOUND, "id")
async def workload_binding_not_found(scene: Scene) -> Refusal:
    request = account.GetWorkloadBindingRequest(workload_binding_id="wlb_1")
    return await scene.refused(request, scene.suite.operator_key)


@provokes(Reason.SPIFFE_ID_PATTERN_TAKEN, "field")
async def spiffe_id_pattern_taken(scene: Scene) -> Refusal:
    request = account.CreateWorkloadBindingRequest(
        spiffe_id_pattern=f"spiffe://{scene.world.account_id}.test/a",
        account_id=scene.world.account_id,
        mode=Mode.TEST,
        scopes=["keys:read"],
    )
    await send(scene.suite, request, scene.suite.operator_key)
    return await scene.refused(request, scene.suite.operator_key)


@provokes(Reason.CUSTOMER_TAKEN, "field")
async def customer_taken(scene: Scene) -> Refusal:
    ids = [await scene.customer_id(f"{uuid()}@example.com") for _ in range(2)]
    taken = (await scene.world.test.customers.get(ids[0])).email
    return await scene.refused(customers.UpdateCustomerRequest(customer_id=ids[1], email=taken))


@provokes(Reason.CUSTOMER_BANNED, "customerId")
async def customer_banned(scene: Scene) -> Refusal:
    customer_id = await scene.customer_id(f"{uuid()}@example.com")
    await scene.world.test.customers.ban(customer_id)
    request = pb.CreateLicenseRequest(policy_id=scene.shop.policy.policy_id)
    request.customer.customer_id = customer_id
    return await scene.refused(request)


@provokes(Reason.INSUFFICIENT_USAGE, "id", "asked", "available")
async def insufficient_usage(scene: Scene) -> Refusal:
    await scene.world.test.policies.update(scene.shop.policy.policy_id, max_uses=3)
    made = await scene.shop.issue()
    await scene.world.test.licenses.increment_uses(made.license.license_id, 2)
    return await scene.refused(pb.IncrementUsesRequest(request_id=uuid(), license_id=made.license.license_id, uses=2))


@provokes(Reason.MACHINE_NOT_FOUND, "id")
async def machine_not_found(scene: Scene) -> Refusal:
    return await scene.refused(machines.GetMachineRequest(machine_id="nope"))


async def seated(scene: Scene, fingerprint: str, **terms: Any) -> str:
    """A machine with a seat under terms as the record has them."""
    async with scene.suite.admin() as conn:
        for column, value in terms.items():
            await conn.execute(
                f"UPDATE license.policy SET {column} = $2 WHERE policy_id = $1", scene.shop.policy.policy_id, value
            )
    made = await scene.world.test.activate(license_id=await scene.issue(), fingerprint=fingerprint)
    return made.machine.machine_id


def activation(license_id: str, fingerprint: str) -> Message:
    request = activations.ActivateMachineRequest(license=LicenseSelector(license_id=license_id))
    request.identity.fingerprint = fingerprint
    return request


@provokes(Reason.FINGERPRINT_TAKEN, "field")
async def fingerprint_taken(scene: Scene) -> Refusal:
    await seated(scene, "fingerprint", machine_uniqueness="UNIQUE_PER_POLICY")
    return await scene.refused(activation(await scene.issue(), "fingerprint"))


@provokes(Reason.MACHINE_LIMIT_EXCEEDED, "id", "limit", "allowed")
async def machine_limit_exceeded(scene: Scene) -> Refusal:
    await scene.world.test.policies.update(scene.shop.policy.policy_id, max_machines=1)
    license_id = await scene.issue()
    await scene.world.test.activate(license_id=license_id, fingerprint="fingerprint")
    return await scene.refused(activation(license_id, "another-fingerprint"))


@provokes(Reason.HEARTBEAT_DEAD, "id")
async def heartbeat_dead(scene: Scene) -> Refusal:
    machine_id = await seated(scene, "fingerprint", require_heartbeat=True)
    await scene.world.test.heartbeat(machine_id)
    async with scene.suite.admin() as conn:
        long_ago = "now() - interval '1 day'"
        await conn.execute(f"UPDATE machine.beat SET last_heartbeat_at = {long_ago} WHERE machine_id = $1", machine_id)
        await conn.execute(f"UPDATE machine.machine SET heartbeat_from = {long_ago} WHERE machine_id = $1", machine_id)
    return await scene.refused(activations.HeartbeatMachineRequest(machine_id=machine_id))


@provokes(Reason.SEAT_LOST, "id", "epoch")
async def seat_lost(scene: Scene) -> Refusal:
    machine_id = await seated(scene, "fingerprint")
    return await scene.refused(activations.RenewSeatRequest(machine_id=machine_id, epoch=1))


@provokes(Reason.TRANSFER_LIMIT_EXCEEDED, "id", "allowed")
async def transfer_limit_exceeded(scene: Scene) -> Refusal:
    machine_id = await seated(scene, "fingerprint", max_transfers=0)
    return await scene.refused(activations.DeactivateSelfRequest(machine_id=machine_id))


@provokes(Reason.OFFLINE_NOT_ALLOWED, "policyId")
async def offline_not_allowed(scene: Scene) -> Refusal:
    await scene.world.test.policies.update(scene.shop.policy.policy_id, offline_allowed=False)
    return await scene.refused(tokens.IssueLicenseFileRequest(license_id=await scene.issue()))


@provokes(Reason.EXTERNAL_ID_TAKEN, "field")
async def external_id_taken(scene: Scene) -> Refusal:
    await scene.issue(external_id="x")
    return await scene.refused(pb.CreateLicenseRequest(policy_id=scene.shop.policy.policy_id, external_id="x"))


@provokes(Reason.CODE_TAKEN, "field")
async def code_taken(scene: Scene) -> Refusal:
    return await scene.refused(catalog.CreateProductRequest(code=scene.shop.product.code, display_name="x"))


@provokes(Reason.KEY_TAKEN, "field")
async def key_taken(scene: Scene) -> Refusal:
    await scene.issue(key="my-own-key")
    return await scene.refused(pb.CreateLicenseRequest(policy_id=scene.shop.policy.policy_id, key="my-own-key"))


@provokes(Reason.STATE_TRANSITION_INVALID, "from", "action")
async def state_transition_invalid(scene: Scene) -> Refusal:
    return await scene.refused(pb.ReinstateLicenseRequest(license_id=await scene.issue()))


@provokes(Reason.POLICY_INCOMPATIBLE, "policyId")
async def policy_incompatible(scene: Scene) -> Refusal:
    perpetual = await open_shop(scene.world.test, code="EVER", duration=None)
    made = await perpetual.issue()
    return await scene.refused(pb.RenewLicenseRequest(license_id=made.license.license_id))


@provokes(Reason.UNLIMITED_NOT_CONFIRMED, "field")
async def unlimited_not_confirmed(scene: Scene) -> Refusal:
    request = catalog.CreatePolicyRequest(product_id=scene.shop.product.product_id, display_name="x")
    return await scene.refused(request)


@provokes(Reason.KEY_NOT_STORED, "id")
async def key_not_stored(scene: Scene) -> Refusal:
    hashed = await open_shop(scene.world.test, code="HASHED", key_storage="HASH_ONLY")
    return await scene.refused(pb.RevealLicenseKeyRequest(license_id=(await hashed.issue()).license.license_id))


@provokes(Reason.KEY_STORAGE_UNAVAILABLE, "field")
async def key_storage_unavailable(scene: Scene) -> Refusal:
    async with running_suite(scene.postgres, scene.folder, kek_file=None) as without, without.world() as world:
        return await refused(without, catalog.CreateProductRequest(code="NOKEK", display_name="x"), world.test_key)


@provokes(Reason.RESOURCE_IN_USE, "id", "usedBy")
async def resource_in_use(scene: Scene) -> Refusal:
    return await scene.refused(catalog.DeleteProductRequest(product_id=scene.shop.product.product_id))


@provokes(Reason.OVERLOADED)
async def overloaded(scene: Scene) -> Refusal:
    """A suite that takes one call at a time, and that one waits for a lock."""
    async with running_suite(scene.postgres, scene.folder, max_in_flight=1) as small, small.world() as world:
        made = await (await open_shop(world.test)).issue()
        request = pb.SuspendLicenseRequest(license_id=made.license.license_id)
        async with held(small, LOCK_A_LICENSE, made.license.license_id) as conn:
            waiting = asyncio.ensure_future(send(small, request, world.test_key))
            await blocked_backend(conn)
            found = await refused(small, account.WhoAmIRequest(), world.test_key)
        await waiting
    return found


@provokes(Reason.RATE_LIMITED, "limit", "allowed")
async def rate_limited(scene: Scene) -> Refusal:
    async with scene.suite.client(scene.suite.operator_key) as operator:
        await operator.accounts.update(scene.world.account_id, limits={"management_calls_per_second": 1})
    await send(scene.suite, account.WhoAmIRequest(), scene.world.live_key)
    return await refused(scene.suite, account.WhoAmIRequest(), scene.world.live_key)


@provokes(Reason.ETAG_MISMATCH, "id")
async def etag_mismatch(scene: Scene) -> Refusal:
    return await scene.refused(pb.DeleteLicenseRequest(license_id=await scene.issue(), etag="r0"))


@provokes(Reason.TRANSACTION_CONFLICT)
async def transaction_conflict(scene: Scene) -> Refusal:
    scene.monkeypatch.setattr(pool, "LOCK_TIMEOUT_MS", 50)
    license_id = await scene.issue()
    async with held(scene.suite, LOCK_A_LICENSE, license_id), unchanged(scene.suite, scene.world):
        return await scene.refused(pb.SuspendLicenseRequest(license_id=license_id))


@provokes(Reason.DUPLICATE_IN_FLIGHT, "method")
async def duplicate_in_flight(scene: Scene) -> Refusal:
    """Another transaction holds the request id, as a call does until it commits."""
    scene.monkeypatch.setattr(pool, "LOCK_TIMEOUT_MS", 50)
    request_id = uuid()
    claim = "INSERT INTO record.request (account_id, mode, method, request_id_hash, body_hash) VALUES ($1, 'TEST', $2, $3, '')"
    method = "/lictor.license.v1.LicenseService/CreateLicense"
    hashed = sealing.request_id_hash(request_id.replace("-", ""))
    async with held(scene.suite, claim, scene.world.account_id, method, hashed):
        request = pb.CreateLicenseRequest(policy_id=scene.shop.policy.policy_id, request_id=request_id)
        return await scene.refused(request)


@provokes(Reason.RECORD_UNREACHABLE)
async def record_unreachable(scene: Scene) -> Refusal:
    """The connection is cut while the call waits on it."""
    license_id = await scene.issue()
    request = pb.SuspendLicenseRequest(license_id=license_id)
    async with unchanged(scene.suite, scene.world), held(scene.suite, LOCK_A_LICENSE, license_id) as conn:
        waiting = asyncio.ensure_future(scene.refused(request))
        assert await conn.fetchval("SELECT pg_terminate_backend($1)", await blocked_backend(conn))
        return await waiting


@provokes(Reason.DRAINING)
async def draining(scene: Scene) -> Refusal:
    """A health watch stays open until the process leaves."""
    async with running_suite(scene.postgres, scene.folder) as leaving:
        channel = grpc.aio.insecure_channel(leaving.bound.api_addr)
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", as_is, health_pb2.HealthCheckResponse.FromString)
        states = aiter(watch(b""))
        await anext(states)
    try:
        return await refused_by(exhausted(states))
    finally:
        await channel.close()


async def exhausted(stream: AsyncIterator[object]) -> list[object]:
    return [item async for item in stream]


@provokes(Reason.CREDENTIALS_INVALID)
async def credentials_invalid(scene: Scene) -> Refusal:
    return await scene.refused(account.WhoAmIRequest(), "sk_test_nope")


@provokes(Reason.CALLER_NOT_ALLOWED, "scope")
async def caller_not_allowed(scene: Scene) -> Refusal:
    return await scene.refused(pb.ListLicensesRequest(), await key_with(scene.world.test, "keys:read"))


@provokes(Reason.DEADLINE_TOO_SHORT, "requiredMs")
async def deadline_too_short(scene: Scene) -> Refusal:
    license_id = await scene.issue()
    request = pb.RenewLicenseRequest(license_id=license_id)
    async with held(scene.suite, LOCK_A_LICENSE, license_id):
        return await refused_for_time(lambda: send(scene.suite, request, scene.world.test_key, 0.1), tries=8)


@provokes(Reason.RESYNC_REQUIRED, "why")
async def resync_required(scene: Scene) -> Refusal:
    async with watching(scene.suite, scene.world.test_key, complete=False, resume_token="x") as watcher:
        return await refused_by(watcher.refused())


@provokes(Reason.METHOD_UNKNOWN, "method")
async def method_unknown(scene: Scene) -> Refusal:
    call = scene.suite.channel.unary_unary("/lictor.license.v1.LicenseService/Nope", as_is, as_is)
    return await refused_by(call(b"", metadata=grpc.aio.Metadata(*bearer(scene.world.test_key))))


@provokes(Reason.INTERNAL_FAULT)
async def internal_fault(scene: Scene) -> Refusal:
    """A stored answer that somebody has damaged."""
    request = account.CreateApiKeyRequest(scopes=["keys:read"], request_id=uuid())
    await send(scene.suite, request, scene.world.test_key)
    async with scene.suite.admin() as conn:
        await conn.execute(
            "UPDATE record.request SET result = '\\x00' WHERE account_id = $1 AND sealed", scene.world.account_id
        )
    found = await scene.refused(request)
    assert "stored result" not in found.message, "what went wrong is for the log alone"
    return found


def test_the_vocabulary_and_the_code_table_are_one() -> None:
    assert [reason.value for reason in Reason] == [name for name, number in ErrorReason.Reason.items() if number]
    assert set(CODES) == set(Reason)
    assert set(PROVOKED) == set(REASONS)


def test_codes_are_grpcs() -> None:
    numbers = {code.name: code.value[0] for code in grpc.StatusCode}
    assert {code.name: int(code) for code in Code} == {code.name: numbers[code.name] for code in Code}


RETRIED = {Reason.OVERLOADED, Reason.RATE_LIMITED, Reason.RECORD_UNREACHABLE}


@pytest_asyncio.fixture(loop_scope="session")
async def scene(
    suite: Suite, world: World, postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    return Scene(suite, world, await open_shop(world.test), postgres, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", REASONS)
async def test_every_reason_is_raised_over_the_wire(scene: Scene, name: str) -> None:
    assert name in PROVOKED, "nobody provokes this reason"
    provocation, keys = PROVOKED[name]
    found = await provocation(scene)
    reason = Reason(name)
    assert found.reason == name
    assert found.code.name == CODES[reason].name
    assert found.info.domain == "lictor.dev"
    assert set(found.info.metadata) == keys
    assert bool(found.violations) is (reason is Reason.FIELD_INVALID)
    assert (found.retry_ms is not None) is (reason in RETRIED)
    failed = CODES[reason] is Code.FAILED_PRECONDITION
    assert (found.precondition is not None) is failed
    assert not failed or (found.precondition or ("",))[0] == name
    assert found.message
    quota = reason in {Reason.INSUFFICIENT_USAGE, Reason.MACHINE_LIMIT_EXCEEDED, Reason.TRANSFER_LIMIT_EXCEEDED}
    assert len(found.status.details) == 2 + bool(found.violations) + failed + quota + (reason in RETRIED)
