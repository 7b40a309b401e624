"""Those who write while the processes are hammered. Each line has one of them, who waits for the end of each write.

A write that nobody answered is sent again, to any process, under the same request id, until somebody says how it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from lictor.account.v1 import account_service_pb2 as accounts
from lictor.common.v1.common_pb2 import Mode
from lictor.common.v1.options_pb2 import Effect
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import customer_service_pb2 as customers
from lictor.license.v1 import license_service_pb2 as licenses

from tests.consistency.history import Value, Write
from tests.consistency.machine_hands import change_machine, change_processes, let_leases_end
from tests.consistency.scene import Scene, Secrets, license_value, new_key, now, policy_terms, scopes_of, tier_terms
from tests.helpers.builders import METHODS, rules_of
from tests.helpers.echo import Refusal, refusal

WRITE_WITHIN_S: Final = 3.0
GIVE_UP_AFTER_S: Final = 6.0
RESTRICTING: Final = {Effect.RESTRICTING, Effect.KIND_UNSPECIFIED}
IS_IN_A_HURRY: Final = 0.1
NOBODY_KNOWS: Final = {
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN,
}  # fmt: skip


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The server's reason, or the code where grpc itself gave up."""
    try:
        told: Refusal = refusal(error)
    except (AssertionError, KeyError, StopIteration, ValueError):
        return error.code().name
    return told.reason


class Hands:
    """All who write. They begin nothing new once `stop` is set."""

    def __init__(self, scene: Scene, stop: asyncio.Event) -> None:
        self._scene, self._stop = scene, stop
        self._ledger, self._random = scene.ledger, scene.random

    async def write(
        self,
        request: Any,
        changes: Mapping[str, Value],
        authorization: str = "",
        born: Callable[[Any], Mapping[str, Value]] = lambda answer: {},
    ) -> Any:
        """One write, and what it makes of its lines. None where it was refused, or nobody ever told how it ended.

        `born` are the lines that its answer names for the first time.
        """
        method = METHODS[request.DESCRIPTOR.full_name]
        restricting = rules_of(method).effect in RESTRICTING
        if restricting and self._random.random() < IS_IN_A_HURRY:
            request.return_before_effective = True
            restricting = False  # what it takes away may be seen as long as the lease lasts, like what others give
        repeats = "request_id" in request.DESCRIPTOR.fields_by_name  # heartbeats are not told apart
        if repeats:
            request.request_id = str(uuid4())
        begin, is_lost = now(), False
        while True:
            server = self._random.choice(self._scene.fleet.servers)
            try:
                answer = await server.send(request, authorization or self._scene.authorization, WRITE_WITHIN_S)
            except grpc.aio.AioRpcError as error:
                self._ledger.refusals[f"{method.name} {reason_of(error)}"] += 1
                if error.code() not in NOBODY_KNOWS and not (is_lost and repeats):
                    return None
                if not repeats and error.code() in NOBODY_KNOWS:  # it may still come to pass, whatever follows
                    self._ledger.writes.append(Write(method.name, begin, None, changes))
                is_lost = True
                if self._stop.is_set() and now() - begin > GIVE_UP_AFTER_S:
                    self._ledger.refusals[f"lost: {method.name} {reason_of(error)}"] += 1
                    self._ledger.writes.append(Write(method.name, begin, None, changes, restricting))
                    return None
                await asyncio.sleep(0.05)
            else:
                break
        end = now()
        for line, value in born(answer).items():
            self._ledger.begin(line, None)
            changes = {**changes, line: value}
        made = Write(method.name, begin, end, changes, restricting)
        self._ledger.writes.append(made)
        if "revision_token" in answer.DESCRIPTOR.fields_by_name:
            self._ledger.tokens.append((made, answer.revision_token))
        self._ledger.held.update(changes)
        return answer

    async def _pause(self, for_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), for_s)

    async def _keep(self, steps: Sequence[Callable[[], Awaitable[Any]]]) -> None:
        while not self._stop.is_set():
            await self._random.choice(steps)()
            await asyncio.sleep(self._random.uniform(0, 0.05))

    def tasks(self) -> list[Awaitable[None]]:
        """Everyone's work."""
        scene = self._scene
        groups = [scene.licenses[n::6] for n in range(6)]
        return [
            *(self._keep([lambda group=group: self._license(self._random.choice(group))]) for group in groups),
            *(
                self._keep([lambda group=group: change_machine(scene, self.write, self._random.choice(group))])
                for group in groups[:3]
            ),
            *(self._keep([lambda one=one: change_processes(scene, self.write, one)]) for one in groups[4]),
            *(self._keep([lambda one=one: let_leases_end(scene, self.write, one, self._pause)]) for one in groups[3]),
            *(self._keep([lambda one=one: self._policy(one)]) for one in scene.policies),
            self._keep([lambda: self._tier(self._random.choice(scene.tiers))]),
            *(self._keep([lambda n=n: self._customer(scene.customers[n % 4 :: 4])]) for n in range(4)),
            *(self._keep([self._short_life]) for _ in range(2)),
            self._keep([lambda: self._api_key(scene.api_keys, accounts.ApiKeyKind.SECRET)]),
            self._keep([lambda: self._api_key(scene.callers.publishable, accounts.ApiKeyKind.PUBLISHABLE)]),
            self._keep([self._account]),
            *(self._keep([lambda one=one: self._session(one)]) for one in scene.callers.customers),
            *(self._keep([lambda one=one: self._binding(one)]) for one in scene.callers.workloads),
        ]

    async def _license(self, license_id: str) -> None:
        """One of the changes of a license; what it makes of it is known before."""
        random, line = self._random, f"license:{license_id}"
        held = self._ledger.held[line]
        assert held is not None
        if held["suspended"]:
            await self.write(
                licenses.ReinstateLicenseRequest(license_id=license_id), {line: {**held, "suspended": False}}
            )
            return
        match random.choice(("suspend", "expire", "expire", "policy", "tier", "transfer", "rotate")):
            case "suspend":
                request = licenses.SuspendLicenseRequest(license_id=license_id)
                await self.write(request, {line: {**held, "suspended": True}})
            case "policy":
                policy_id = random.choice([one for one in self._scene.policies if one != held["policy"]])
                request = licenses.ChangePolicyRequest(license_id=license_id, policy_id=policy_id)
                await self.write(request, {line: {**held, "policy": policy_id}})
            case "tier":
                tier_id = random.choice([one for one in self._scene.tiers if one != held["tier"]])
                request = licenses.ChangeTierRequest(license_id=license_id, tier_id=tier_id)
                await self.write(request, {line: {**held, "tier": tier_id}})
            case "transfer":
                holder = next(one for one in self._scene.holders[license_id] if one != held["holder"])
                named = licenses.CustomerRef(customer_id=holder)
                request = licenses.TransferLicenseRequest(license_id=license_id, customer=named)
                await self.write(request, {line: {**held, "holder": holder}})
            case "rotate":
                await self._rotate(license_id)
            case _:
                seconds, expire_time = self._scene.far()
                mask = FieldMask(paths=["expire_time"])
                request = licenses.UpdateLicenseRequest(
                    license_id=license_id, expire_time=expire_time, update_mask=mask
                )
                await self.write(request, {line: {**held, "expires": seconds}})

    async def _rotate(self, license_id: str) -> None:
        """The old key ends as the new one begins."""
        scene, old, new = self._scene, self._scene.keys[license_id], self._announced()
        request = licenses.RotateLicenseKeyRequest(license_id=license_id, key=new, overlap=Duration())
        changes: dict[str, Value] = {f"key:{old}": None, f"key:{new}": {"found": True}}
        if await self.write(request, changes) is not None:
            scene.keys[license_id] = new

    def _announced(self) -> str:
        """A new key that is asked for already before it is there."""
        key = new_key()
        self._ledger.begin(f"key:{key}", None)
        self._scene.recent_keys.append(key)
        return key

    async def _policy(self, policy_id: str) -> None:
        shown, fields = policy_terms(next(self._scene.numbers))
        request = catalog.UpdatePolicyRequest(policy_id=policy_id, update_mask=FieldMask(paths=list(fields)), **fields)
        await self.write(request, {f"policy:{policy_id}": shown})

    async def _tier(self, tier_id: str) -> None:
        shown, fields = tier_terms(next(self._scene.numbers))
        request = catalog.UpdateTierRequest(tier_id=tier_id, update_mask=FieldMask(paths=list(fields)), **fields)
        await self.write(request, {f"tier:{tier_id}": shown})

    async def _customer(self, group: Sequence[str]) -> None:
        customer_id = self._random.choice(group)
        line = f"customer:{customer_id}"
        held = self._ledger.held[line]
        assert held is not None
        if held["banned"]:
            request = customers.UnbanCustomerRequest(customer_id=customer_id)
            await self.write(request, {line: {**held, "banned": False}})
        elif self._random.random() < 0.5:
            request = customers.BanCustomerRequest(customer_id=customer_id)
            await self.write(request, {line: {**held, "banned": True}})
        else:
            subject = f"s{next(self._scene.numbers)}"
            mask = FieldMask(paths=["subject_ref"])
            request = customers.UpdateCustomerRequest(customer_id=customer_id, subject_ref=subject, update_mask=mask)
            await self.write(request, {line: {**held, "subject": subject}})

    async def _short_life(self) -> None:
        """A license that comes and goes. Its key is asked for before, meanwhile and after."""
        scene, key = self._scene, self._announced()
        policy_id, tier_id = self._random.choice(scene.policies), self._random.choice(scene.tiers)
        seconds, expire_time = scene.far()
        request = licenses.CreateLicenseRequest(policy_id=policy_id, tier_id=tier_id, key=key, expire_time=expire_time)
        value = license_value(seconds, policy_id, tier_id, "")
        made = await self.write(
            request, {f"key:{key}": {"found": True}}, born=lambda made: {f"license:{made.license.license_id}": value}
        )
        if made is None:
            return
        line = f"license:{made.license.license_id}"
        await asyncio.sleep(self._random.uniform(0, 0.5))
        gone = licenses.DeleteLicenseRequest(license_id=made.license.license_id)
        await self.write(gone, {f"key:{key}": None, line: None})

    async def _api_key(self, known: Secrets, kind: accounts.ApiKeyKind.Kind.ValueType) -> None:
        """A key goes, and another comes, by itself or in its place."""
        line = self._random.choice(list(known.good))
        api_key_id = line.partition(":")[2]
        known.end(line)
        if self._random.random() < 0.5:
            request = accounts.RotateApiKeyRequest(api_key_id=api_key_id, overlap=Duration())
            made = await self.write(request, {line: None}, born=_api_key)
        else:
            await self.write(accounts.RevokeApiKeyRequest(api_key_id=api_key_id), {line: None})
            request = accounts.CreateApiKeyRequest(kind=kind, scopes=["licenses:validate"])
            made = await self.write(request, {}, born=_api_key)
        if made is not None:
            known.good[f"api_key:{made.api_key.api_key_id}"] = made.secret
        await asyncio.sleep(self._random.uniform(0, 0.1))

    async def _session(self, customer_id: str) -> None:
        """A session begins, and ends, by itself or with a ban of its customer."""
        sessions = self._scene.callers.sessions
        request = customers.CreateCustomerSessionRequest(customer_id=customer_id)
        made = await self.write(request, {}, born=_new_session)
        if made is None:
            return
        line = f"session:{made.customer_session.customer_session_id}"
        sessions.good[line] = made.token
        await asyncio.sleep(self._random.uniform(0, 0.5))
        sessions.end(line)
        if self._random.random() < 0.5:
            await self.write(customers.RevokeCustomerSessionsRequest(customer_id=customer_id), {line: None})
            return
        await self.write(customers.BanCustomerRequest(customer_id=customer_id), {line: None})
        # What a ban does to a session does not matter here: it is over before the ban is.
        await self.write(customers.RevokeCustomerSessionsRequest(customer_id=customer_id), {})
        await self.write(customers.UnbanCustomerRequest(customer_id=customer_id), {})

    async def _binding(self, workload: str) -> None:
        """A workload's own binding comes, changes and goes."""
        scene, operator = self._scene, self._scene.fleet.operator
        line, bindings = f"workload:{workload}", scene.callers.bindings
        shown, scopes = scopes_of(next(scene.numbers))
        binding_id = bindings.get(workload)
        if binding_id is None:
            request: Any = accounts.CreateWorkloadBindingRequest(
                spiffe_id_pattern=workload, account_id=scene.account_id, mode=Mode.TEST, scopes=scopes
            )
            made = await self.write(request, {line: shown}, operator)
            if made is not None:
                bindings[workload] = made.workload_binding.workload_binding_id
        elif self._random.random() < 0.5:
            request = accounts.UpdateWorkloadBindingRequest(
                workload_binding_id=binding_id, scopes=scopes, update_mask=FieldMask(paths=["scopes"])
            )
            await self.write(request, {line: shown}, operator)
        else:
            request = accounts.DeleteWorkloadBindingRequest(workload_binding_id=binding_id)
            if await self.write(request, {line: scene.callers.beneath.get(workload)}, operator) is not None:
                del bindings[workload]
        await asyncio.sleep(self._random.uniform(0, 0.2))

    async def _account(self) -> None:
        """The other account, all of whose keys stop and go on with it."""
        scene = self._scene
        active = self._ledger.field_of("account", "active")
        request: Any = accounts.SuspendAccountRequest(account_id=scene.other_account_id)
        if not active:
            request = accounts.ReinstateAccountRequest(account_id=scene.other_account_id)
        await self.write(request, {"account": {"active": not active}}, scene.fleet.operator)
        await asyncio.sleep(self._random.uniform(0, 0.3))


def _api_key(made: Any) -> Mapping[str, Value]:
    return {f"api_key:{made.api_key.api_key_id}": {"live": True}}


def _new_session(made: Any) -> Mapping[str, Value]:
    return {f"session:{made.customer_session.customer_session_id}": {"live": True}}
