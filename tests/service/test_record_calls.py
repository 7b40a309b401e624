"""Every mutation of the API as a call that succeeds; and that there is one for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import uuid4

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from lictor.account.v1 import account_service_pb2 as account
from lictor.common.v1 import options_pb2
from lictor.common.v1.common_pb2 import Mode as ModePb
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import customer_service_pb2 as customers
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.license.v1 import token_service_pb2 as tokens
from lictor.machine.v1 import activation_service_pb2 as activation
from lictor.machine.v1 import machine_service_pb2 as machines

from shared.tenancy import Mode
from tests.helpers.suite import Suite, World, bearer

_ACCOUNTS: Final = "/lictor.account.v1.AccountService/"


@dataclass(frozen=True)
class Case:
    """One call of a mutation that succeeds, without a request id: what is sent, and the events that it makes."""

    request: Message
    events: tuple[str, ...]
    operator: bool = False


@dataclass(frozen=True)
class Stage:
    """An account in which to prepare what a mutation works on."""

    suite: Suite
    world: World

    async def product_id(self) -> str:
        made = await self.world.test.products.create(code=uuid4().hex[:12].upper(), display_name="Product")
        return made.product.product_id

    async def tier_id(self) -> str:
        made = await self.world.test.tiers.create(product_id=await self.product_id(), slug="pro", display_name="Pro")
        return made.tier.tier_id

    async def signing_key_id(self) -> str:
        made = await self.world.test.signing_keys.rotate(await self.product_id())
        return made.signing_key.signing_key_id

    async def signed_product_id(self) -> str:
        """One with a key that signs."""
        product_id = await self.product_id()
        await self.world.test.signing_keys.rotate(product_id)
        return product_id

    async def policy_id(self) -> str:
        return (
            await self.world.test.policies.create(
                product_id=await self.product_id(),
                display_name="Policy",
                template="trial",
                require_check_in=True,
                check_in_interval="YEAR",
            )
        ).policy.policy_id

    async def license_id(self) -> str:
        return (await self.world.test.licenses.create(policy_id=await self.policy_id())).license.license_id

    async def limited_license_id(self) -> str:
        """One with five uses."""
        policy_id = await self.policy_id()
        await self.world.test.policies.update(policy_id, max_uses=5)
        return (await self.world.test.licenses.create(policy_id=policy_id)).license.license_id

    async def offline_license_id(self) -> str:
        license_id = await self.license_id()
        policy_id = (await self.world.test.licenses.get(license_id)).policy_id
        await self.world.test.policies.update(policy_id, offline_allowed=True)
        return license_id

    async def used_license_id(self) -> str:
        license_id = await self.license_id()
        await self.world.test.licenses.increment_uses(license_id, 3)
        return license_id

    async def customer_id(self) -> str:
        email = f"{uuid4().hex}@example.com"
        made = await self.world.test.licenses.create(policy_id=await self.policy_id(), customer_email=email)
        return made.license.customer_id

    async def customer_id_with_session(self) -> str:
        customer_id = await self.customer_id()
        await self.world.test.customers.create_session(customer_id)
        return customer_id

    async def banned_customer_id(self) -> str:
        customer_id = await self.customer_id()
        await self.world.test.customers.ban(customer_id)
        return customer_id

    async def suspended_license_id(self) -> str:
        license_id = await self.license_id()
        await self.world.test.licenses.suspend(license_id)
        return license_id

    async def floating_license_id(self) -> str:
        policy_id = await self.policy_id()
        await self.world.test.policies.update(policy_id, floating=True)
        return (await self.world.test.licenses.create(policy_id=policy_id)).license.license_id

    async def machine_id(self) -> str:
        license_id = await self.license_id()
        made = await self.world.test.activate(license_id=license_id, fingerprint=f"fingerprint-{uuid4()}")
        return made.machine.machine_id

    async def api_key_id(self) -> str:
        return (await self.world.test.api_keys.create(scopes=["keys:read"])).api_key.api_key_id

    async def account_id(self, *, suspended: bool = False) -> str:
        async with self.suite.client(self.suite.operator_key) as operator:
            made = (await operator.accounts.create(display_name="Other", request_id=str(uuid4()))).account
            if suspended:
                await operator.accounts.suspend(made.account_id)
        return made.account_id

    def new_binding(self) -> account.CreateWorkloadBindingRequest:
        return account.CreateWorkloadBindingRequest(
            spiffe_id_pattern=f"spiffe://{uuid4().hex}.test/*", account_id=self.world.account_id,
            mode=ModePb.TEST, scopes=["keys:read"],
        )  # fmt: skip

    async def workload_binding_id(self) -> str:
        made = await send(self.suite, _ACCOUNTS + "CreateWorkloadBinding", self.new_binding(), self.suite.operator_key)
        return made.workload_binding.workload_binding_id

    async def send(self, method: str, case: Case, request_id: str = "", *, mode: Mode = Mode.TEST) -> Any:
        """Calls a mutation as it is on the wire, once; the answer."""
        key = self.world.test_key if mode is Mode.TEST else self.world.live_key
        return await send(
            self.suite, method, case.request, self.suite.operator_key if case.operator else key, request_id
        )


async def send(suite: Suite, method: str, request: Message, key: str, request_id: str = "") -> Any:
    """One call of a mutation with a request id; an empty one stays out."""
    sent = type(request)()
    sent.CopyFrom(request)
    cast("Any", sent).request_id = request_id
    answer = GetMessageClass(MUTATIONS[method].output_type)
    call = suite.channel.unary_unary(
        method, request_serializer=type(sent).SerializeToString, response_deserializer=answer.FromString
    )
    return await call(sent, metadata=bearer(key), timeout=10)


def _mutations() -> dict[str, MethodDescriptor]:
    found: dict[str, MethodDescriptor] = {}
    for module in (account, catalog, customers, licenses, activation, machines, tokens):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if "revision_token" in method.output_type.fields_by_name:
                    found[f"/{service.full_name}/{method.name}"] = method
    return found


MUTATIONS: Final[Mapping[str, MethodDescriptor]] = _mutations()
"""Every method that changes something, by its path: their answers carry a revision token."""

_KEYS: Final = ("api_key.created", "api_key.created")


async def case_of(stage: Stage, method: str) -> Case:  # noqa: PLR0911 - a line for each method that is not like the others
    """A call of `method` that will succeed, with all that it needs in place. KeyError for a method that is not known."""
    match method.rpartition("/")[2]:
        case "CreateAccount":
            return Case(account.CreateAccountRequest(display_name="A"), (*_KEYS, "account.created"), operator=True)
        case "CreateApiKey":
            return Case(account.CreateApiKeyRequest(display_name="K", scopes=["keys:read"]), ("api_key.created",))
        case "CreateProduct":
            code = uuid4().hex[:12].upper()
            return Case(catalog.CreateProductRequest(code=code, display_name="P"), ("product.created",))
        case "CreatePolicy":
            request = catalog.CreatePolicyRequest(product_id=await stage.product_id(), display_name="P", max_machines=1)
            return Case(request, ("policy.created",))
        case "CreateLicense":
            holder = licenses.CustomerRef(email=f"{uuid4().hex}@example.com")
            request = licenses.CreateLicenseRequest(policy_id=await stage.policy_id(), customer=holder)
            return Case(request, ("customer.created", "license.created"))
        case "IncrementUses":
            request = licenses.IncrementUsesRequest(license_id=await stage.limited_license_id(), uses=5)
            return Case(request, ("license.usage.incremented", "license.limit_reached"))
        case name:
            build, event = _CHANGES[name]
            return Case(await build(stage), event, operator=name.endswith(("Account", "WorkloadBinding")))


async def _reinstate_account(s: Stage) -> Message:
    return account.ReinstateAccountRequest(account_id=await s.account_id(suspended=True))


async def _create_workload_binding(s: Stage) -> Message:
    return s.new_binding()


async def _import_licenses(s: Stage) -> Message:
    holder = licenses.CustomerRef(email=f"{uuid4().hex}@example.com")
    item = licenses.LicenseImport(policy_id=await s.policy_id(), customer=holder)
    return licenses.ImportLicensesRequest(items=[item])


async def _update_license(s: Stage) -> Message:
    return licenses.UpdateLicenseRequest(license_id=await s.license_id(), expire_time=Timestamp(seconds=4_000_000_000))


async def _change_tier(s: Stage) -> Message:
    license_ = await s.world.test.licenses.get(await s.license_id())
    made = await s.world.test.tiers.create(product_id=license_.product_id, slug="pro", display_name="Pro")
    return licenses.ChangeTierRequest(license_id=license_.license_id, tier_id=made.tier.tier_id)


async def _change_policy(s: Stage) -> Message:
    license_ = await s.world.test.licenses.get(await s.license_id())
    made = await s.world.test.policies.create(product_id=license_.product_id, display_name="Other", template="trial")
    return licenses.ChangePolicyRequest(license_id=license_.license_id, policy_id=made.policy.policy_id)


async def _transfer(s: Stage) -> Message:
    holder = licenses.CustomerRef(customer_id=await s.customer_id())
    return licenses.TransferLicenseRequest(license_id=await s.license_id(), customer=holder)


async def _activate(s: Stage) -> Message:
    request = activation.ActivateMachineRequest()
    request.license.license_id, request.identity.fingerprint = await s.license_id(), "fingerprint"
    return request


async def _acquire_seat(s: Stage) -> Message:
    request = activation.AcquireSeatRequest()
    request.license.license_id, request.identity.fingerprint = await s.floating_license_id(), "fingerprint"
    return request


def _of_lease(kind: Callable[..., Message], *, epoch: bool = True) -> Any:
    async def build(stage: Stage) -> Message:
        license_id = await stage.floating_license_id()
        made = await stage.world.test.acquire_seat(license_id=license_id, fingerprint=f"fingerprint-{uuid4()}")
        machine = made.granted.machine
        return kind(machine_id=machine.machine_id, **({"epoch": machine.lease.epoch} if epoch else {}))

    return build


async def _issue_machine_file(s: Stage) -> activation.IssueMachineFileRequest:
    made = await s.world.test.activate(license_id=await s.offline_license_id(), fingerprint="fingerprint")
    # Whose first file would make it, in a transaction of the license service's own.
    await s.world.test.signing_keys.rotate(made.machine.product_id)
    return activation.IssueMachineFileRequest(machine_id=made.machine.machine_id, fingerprint="fingerprint")


async def _return_machine_file(s: Stage) -> Message:
    asked = await _issue_machine_file(s)
    await s.world.test.machines.issue_file(asked.machine_id, fingerprint=asked.fingerprint)
    return activation.ReturnMachineFileRequest(machine_id=asked.machine_id, reason="why")


async def _transfer_machine(s: Stage) -> Message:
    request = machines.TransferMachineRequest(machine_id=await s.machine_id())
    request.identity.fingerprint = "another-fingerprint"
    return request


def _of(kind: Callable[..., Message], field: str, make: Callable[[Stage], Awaitable[str]], **more: str) -> Any:
    async def build(stage: Stage) -> Message:
        return kind(**{field: await make(stage)}, **more)

    return build


async def _update_account(s: Stage) -> Message:
    limits = account.AccountLimits(management_calls_per_second=7)
    return account.UpdateAccountRequest(account_id=await s.account_id(), limits=limits)


_CHANGES: Final[Mapping[str, tuple[Callable[[Stage], Awaitable[Message]], tuple[str, ...]]]] = {
    "UpdateAccount": (_update_account, ("account.updated",)),
    "SuspendAccount": (
        _of(account.SuspendAccountRequest, "account_id", Stage.account_id, reason="why"), ("account.suspended",),
    ),
    "ReinstateAccount": (_reinstate_account, ("account.reinstated",)),
    "RotateApiKey": (
        _of(account.RotateApiKeyRequest, "api_key_id", Stage.api_key_id), ("api_key.created", "api_key.rotated"),
    ),
    "RevokeApiKey": (_of(account.RevokeApiKeyRequest, "api_key_id", Stage.api_key_id), ("api_key.revoked",)),
    "CreateWorkloadBinding": (_create_workload_binding, ("workload_binding.created",)),
    "UpdateWorkloadBinding": (
        _of(account.UpdateWorkloadBindingRequest, "workload_binding_id", Stage.workload_binding_id, display_name="new"),
        ("workload_binding.updated",),
    ),
    "DeleteWorkloadBinding": (
        _of(account.DeleteWorkloadBindingRequest, "workload_binding_id", Stage.workload_binding_id),
        ("workload_binding.deleted",),
    ),
    "UpdateProduct": (
        _of(catalog.UpdateProductRequest, "product_id", Stage.product_id, display_name="new"), ("product.updated",),
    ),
    "DeleteProduct": (_of(catalog.DeleteProductRequest, "product_id", Stage.product_id), ("product.deleted",)),
    "IssueLicenseFile": (
        _of(tokens.IssueLicenseFileRequest, "license_id", Stage.offline_license_id),
        ("signing_key.created", "signing_key.activated", "license.checked_out"),
    ),
    "RotateSigningKey": (
        _of(tokens.RotateSigningKeyRequest, "product_id", Stage.signed_product_id),
        ("signing_key.retired", "signing_key.created", "signing_key.activated"),
    ),
    "RevokeSigningKey": (
        _of(tokens.RevokeSigningKeyRequest, "signing_key_id", Stage.signing_key_id), ("signing_key.revoked",),
    ),
    "CreateTier": (
        _of(catalog.CreateTierRequest, "product_id", Stage.product_id, slug="pro", display_name="Pro"), ("tier.created",),
    ),
    "UpdateTier": (_of(catalog.UpdateTierRequest, "tier_id", Stage.tier_id, display_name="new"), ("tier.updated",)),
    "DeleteTier": (_of(catalog.DeleteTierRequest, "tier_id", Stage.tier_id), ("tier.deleted",)),
    "UpdatePolicy": (
        _of(catalog.UpdatePolicyRequest, "policy_id", Stage.policy_id, display_name="new"), ("policy.updated",),
    ),
    "DeletePolicy": (_of(catalog.DeletePolicyRequest, "policy_id", Stage.policy_id), ("policy.deleted",)),
    "UpdateCustomer": (
        _of(customers.UpdateCustomerRequest, "customer_id", Stage.customer_id, display_name="new"), ("customer.updated",),
    ),
    "BanCustomer": (_of(customers.BanCustomerRequest, "customer_id", Stage.customer_id), ("customer.banned",)),
    "UnbanCustomer": (_of(customers.UnbanCustomerRequest, "customer_id", Stage.banned_customer_id), ("customer.unbanned",)),
    "CreateCustomerSession": (
        _of(customers.CreateCustomerSessionRequest, "customer_id", Stage.customer_id), ("customer.session.created",),
    ),
    "RevokeCustomerSessions": (
        _of(customers.RevokeCustomerSessionsRequest, "customer_id", Stage.customer_id_with_session),
        ("customer.session.revoked",),
    ),
    "ImportLicenses": (_import_licenses, ("customer.created", "license.created")),
    "UpdateLicense": (_update_license, ("license.updated",)),
    "SuspendLicense": (_of(licenses.SuspendLicenseRequest, "license_id", Stage.license_id), ("license.suspended",)),
    "ReinstateLicense": (
        _of(licenses.ReinstateLicenseRequest, "license_id", Stage.suspended_license_id), ("license.reinstated",),
    ),
    "RenewLicense": (_of(licenses.RenewLicenseRequest, "license_id", Stage.license_id), ("license.renewed",)),
    "RevokeLicense": (_of(licenses.RevokeLicenseRequest, "license_id", Stage.license_id), ("license.revoked",)),
    "BanLicense": (_of(licenses.BanLicenseRequest, "license_id", Stage.license_id), ("license.banned",)),
    "RotateLicenseKey": (
        _of(licenses.RotateLicenseKeyRequest, "license_id", Stage.license_id, reason="why"), ("license.key.rotated",),
    ),
    "RevealLicenseKey": (
        _of(licenses.RevealLicenseKeyRequest, "license_id", Stage.license_id, reason="why"), ("license.key.revealed",),
    ),
    "ChangePolicy": (_change_policy, ("license.policy.updated",)),
    "TransferLicense": (_transfer, ("license.customer.updated",)),
    "CheckInLicense": (_of(licenses.CheckInLicenseRequest, "license_id", Stage.license_id), ("license.checked_in",)),
    "DecrementUses": (
        _of(licenses.DecrementUsesRequest, "license_id", Stage.used_license_id), ("license.usage.decremented",),
    ),
    "ResetUses": (_of(licenses.ResetUsesRequest, "license_id", Stage.used_license_id), ("license.usage.reset",)),
    "ChangeTier": (_change_tier, ("license.tier.updated",)),
    "AcquireSeat": (_acquire_seat, ("seat.granted",)),
    "RenewSeat": (_of_lease(activation.RenewSeatRequest), ()),
    "EvictSeat": (_of_lease(machines.EvictSeatRequest, epoch=False), ("seat.evicted",)),
    "ReleaseSeat": (_of_lease(activation.ReleaseSeatRequest), ("seat.released",)),
    "ActivateMachine": (_activate, ("machine.activated",)),
    "DeactivateSelf": (
        _of(activation.DeactivateSelfRequest, "machine_id", Stage.machine_id, reason="why"), ("machine.deactivated",),
    ),
    "IssueMachineFile": (_issue_machine_file, ("machine.checked_out",)),
    "ReturnMachineFile": (_return_machine_file, ("machine.checked_in",)),
    "UpdateMachine": (
        _of(machines.UpdateMachineRequest, "machine_id", Stage.machine_id, display_name="new"), ("machine.updated",),
    ),
    "DeactivateMachine": (
        _of(machines.DeactivateMachineRequest, "machine_id", Stage.machine_id), ("machine.deactivated",),
    ),
    "TransferMachine": (_transfer_machine, ("machine.deactivated", "machine.transferred")),
    "ResetMachineHeartbeat": (
        _of(machines.ResetMachineHeartbeatRequest, "machine_id", Stage.machine_id), ("machine.heartbeat.reset",),
    ),
    "DeleteLicense": (_of(licenses.DeleteLicenseRequest, "license_id", Stage.license_id), ("license.deleted",)),
}  # fmt: skip


def test_every_mutation_takes_a_request_id() -> None:
    for path, method in MUTATIONS.items():
        assert method.GetOptions().Extensions[options_pb2.rules].idempotent, path
        assert "request_id" in method.input_type.fields_by_name, path


async def test_every_mutation_is_called(suite: Suite, world: World) -> None:
    stage = Stage(suite, world)
    for path in MUTATIONS:
        answer = await stage.send(path, await case_of(stage, path), str(uuid4()))
        assert answer.revision_token.token, path
        assert answer.HasField("effective_time"), path
