"""What can happen to the callers of a bazaar, and to what they ask about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from lictor.account.v1 import account_service_pb2 as accounts
from lictor.common.v1.common_pb2 import Mode
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import customer_service_pb2 as customers
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.license.v1 import policy_terms_pb2 as words
from lictor.machine.v1 import machine_service_pb2 as machines

from tests.consistency.bazaar import DOMAIN, Bazaar, Caller, identity_of
from tests.helpers.builders import at

Change = Callable[[Bazaar, int], Awaitable[Any]]


def _of_license(request: Callable[..., Any], **more: Any) -> Change:
    async def change(it: Bazaar, n: int) -> None:
        await it.attempt(request(license_id=it.licenses[n % len(it.licenses)], **more))

    return change


async def _expire(it: Bazaar, n: int) -> None:
    mask = FieldMask(paths=["expire_time"])
    end = at(it.soon(6 + n))
    await it.attempt(licenses.UpdateLicenseRequest(license_id=it.licenses[n], expire_time=end, update_mask=mask))


async def _rotate_license_key(it: Bazaar, n: int) -> None:
    overlap = Duration(seconds=0 if n % 2 else 400)  # those of 0 and 2 are credentials
    made = await it.attempt(licenses.RotateLicenseKeyRequest(license_id=it.licenses[n], overlap=overlap))
    if made is not None:
        it.keys[n].insert(0, made.key)
        it.callers[f"license {n}"] = it.by_license_key("pk", made.key)
        it.moments.append(it.now() + timedelta(seconds=400))


async def _move_license(it: Bazaar, n: int) -> None:
    policy_id = it.policies[(n + 1) % 3]
    await it.attempt(licenses.ChangePolicyRequest(license_id=it.licenses[n], policy_id=policy_id))


async def _change_tier(it: Bazaar, n: int) -> None:
    await it.attempt(licenses.ChangeTierRequest(license_id=it.licenses[n], tier_id=it.tiers[n % 2]))


async def _transfer(it: Bazaar, n: int) -> None:
    named = licenses.CustomerRef(customer_id=it.customers[(n + 1) % 2])
    await it.attempt(licenses.TransferLicenseRequest(license_id=it.licenses[n], customer=named))


async def _use(it: Bazaar, n: int) -> None:
    await it.attempt(licenses.IncrementUsesRequest(license_id=it.licenses[3], uses=1 + n % 2))


async def _ban(it: Bazaar, n: int) -> None:
    customer_id = it.customers[n % 2]
    request = customers.BanCustomerRequest if n < 2 else customers.UnbanCustomerRequest
    await it.attempt(request(customer_id=customer_id))


async def _rename(it: Bazaar, n: int) -> None:
    mask = FieldMask(paths=["subject_ref"])
    await it.attempt(
        customers.UpdateCustomerRequest(customer_id=it.customers[n % 2], subject_ref=f"u-{n}", update_mask=mask)
    )


async def _policy(it: Bazaar, n: int) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"require_product_scope": n < 2}, {"require_policy_scope": n < 2}, {"grace_period": Duration(seconds=30 * n)},
        {"authentication": words.Authentication.NONE}, {"authentication": words.Authentication.MIXED},
        {"stale_ok_for": Duration(seconds=60)}, {"expiration_strategy": words.ExpirationStrategy.ALLOW_ACCESS},
        {"require_fingerprint": n < 2}, {"require_machine_scope": n < 2}, {"require_components_scope": n < 2},
        {"machine_matching": words.MatchingRule.MATCH_ALL}, {"require_heartbeat": n < 2}, {"max_machines": n + 1},
    )  # fmt: skip
    terms = changes[(n + it.done) % len(changes)]
    await it.attempt(
        catalog.UpdatePolicyRequest(policy_id=it.policies[n % 3], update_mask=FieldMask(paths=list(terms)), **terms)
    )


async def _machine(it: Bazaar, n: int) -> None:
    """A machine comes where there is none; else it goes, or is another one, or begins anew."""
    machine_id = it.machines.get(n)
    if machine_id is None:
        await it.activate(n)
        return
    requests: tuple[Any, ...] = (
        machines.DeactivateMachineRequest(machine_id=machine_id),
        machines.ResetMachineHeartbeatRequest(machine_id=machine_id),
        machines.UpdateMachineRequest(machine_id=machine_id, cores=n + 1, update_mask=FieldMask(paths=["cores"])),
        machines.TransferMachineRequest(machine_id=machine_id, identity=identity_of(n + 2)),
    )
    request = requests[(n + it.done) % len(requests)]
    made = await it.attempt(request)
    if made is None or request is requests[0]:
        del it.machines[n]  # one comes again next time, the same or another
    else:
        it.machines[n] = made.machine.machine_id


async def _tier(it: Bazaar, n: int) -> None:
    terms: dict[str, Any] = {"position": n} if n % 2 else {"slug": ("pro", "plus")[n // 2]}
    await it.attempt(
        catalog.UpdateTierRequest(tier_id=it.tiers[n // 2], update_mask=FieldMask(paths=list(terms)), **terms)
    )


async def _product(it: Bazaar, n: int) -> None:
    await it.attempt(
        catalog.UpdateProductRequest(
            product_id=it.product_id, display_name=f"A{n}", update_mask=FieldMask(paths=["display_name"])
        )
    )


async def _revoke_api_key(it: Bazaar, n: int) -> None:
    name = ("narrow", "pk", "pk brief", "brief")[n]
    await it.attempt(accounts.RevokeApiKeyRequest(api_key_id=it.api_keys[name]))


async def _rotate_api_key(it: Bazaar, n: int) -> None:
    """The old one may be good for a while. The new one is known by a name of others who are asked about."""
    name = ("narrow", "pk", "pk brief", "brief")[n]
    overlap = Duration(seconds=400 * (n % 2))
    made = await it.attempt(accounts.RotateApiKeyRequest(api_key_id=it.api_keys[name], overlap=overlap))
    if made is not None:
        it.moments.append(it.now() + timedelta(seconds=400))
        it.api_keys[name] = made.api_key.api_key_id
        it.callers["secret" if name in {"narrow", "brief"} else "guessed pk"] = Caller(f"Bearer {made.secret}")


async def _account(it: Bazaar, n: int) -> None:
    request = accounts.SuspendAccountRequest if n < 2 else accounts.ReinstateAccountRequest
    await it.attempt(request(account_id=it.account_id), it.operator)


async def _sessions(it: Bazaar, n: int) -> None:
    await it.attempt(customers.RevokeCustomerSessionsRequest(customer_id=it.customers[n % 2]))


async def _binding(it: Bazaar, n: int) -> None:
    name = ("workload", "workload of many")[n % 2]
    request: Any = accounts.DeleteWorkloadBindingRequest(workload_binding_id=it.bindings[name])
    if n < 2:
        scopes = ["licenses:validate", "keys:read"] if n else ["licenses:read"]
        request = accounts.UpdateWorkloadBindingRequest(
            workload_binding_id=it.bindings[name], scopes=scopes, update_mask=FieldMask(paths=["scopes"])
        )
    await it.attempt(request, it.operator)


async def _bind_again(it: Bazaar, n: int) -> None:
    """A more exact pattern, in the place of one that is gone, or beside it."""
    path = ("/ns/api", "/ns/*", "/a/b", "/*")[n]
    pattern = f"spiffe://{it.account_id.replace('_', '-')}.{DOMAIN}{path}"
    await it.attempt(
        accounts.CreateWorkloadBindingRequest(
            spiffe_id_pattern=pattern, account_id=it.account_id, mode=Mode.LIVE, scopes=["licenses:validate"]
        ),
        it.operator,
    )


CHANGES: Final[dict[str, Change]] = {
    "suspend": _of_license(licenses.SuspendLicenseRequest),
    "reinstate": _of_license(licenses.ReinstateLicenseRequest),
    "revoke": _of_license(licenses.RevokeLicenseRequest),
    "ban": _of_license(licenses.BanLicenseRequest),
    "delete": _of_license(licenses.DeleteLicenseRequest),
    "expire": _expire,
    "rotate": _rotate_license_key,
    "change policy": _move_license,
    "change tier": _change_tier,
    "transfer": _transfer,
    "use": _use,
    "ban customer": _ban,
    "rename customer": _rename,
    "policy": _policy,
    "tier": _tier,
    "product": _product,
    "machine": _machine,
    "revoke API key": _revoke_api_key,
    "rotate API key": _rotate_api_key,
    "account": _account,
    "sessions": _sessions,
    "binding": _binding,
    "bind again": _bind_again,
}
