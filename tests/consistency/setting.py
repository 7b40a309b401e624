"""The account that is hammered, as it is before anybody begins."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from lictor.account.v1 import account_service_pb2 as accounts
from lictor.common.v1.common_pb2 import Mode
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.license.v1 import policy_terms_pb2 as words

from shared.rules.limits import LimitKind
from shared.tenancy import PUBLISHABLE_SCOPES
from tests.consistency.fleet import Fleet
from tests.consistency.scene import (
    MIDDLE,
    PRINTS,
    STAYS,
    Ledger,
    Scene,
    license_value,
    new_key,
    policy_terms,
    print_line,
    scopes_of,
    tier_terms,
)

LICENSES: Final = 24
POLICIES: Final = 4
TIERS: Final = 3
CUSTOMERS: Final = 8
API_KEYS: Final = 5
PUBLISHABLE_KEYS: Final = 3
SESSIONS: Final = 3
LONG_AFTER: Final = Duration(seconds=90 * 86400)
"""When heartbeats are due: none is missed. What time alone ends are leases, which are shorter."""


async def set_up(fleet: Fleet, random: Random, lease_s: float) -> Scene:
    """Two accounts, and in the first all that validations look at."""
    server = fleet.servers[0]

    async def ask(request: Any, authorization: str) -> Any:
        request.request_id = str(uuid4())
        return await server.send(request, authorization, 20)

    first, other = [await ask(accounts.CreateAccountRequest(display_name="Hammered"), fleet.operator) for _ in range(2)]
    scene = Scene(
        fleet, Ledger(), random, lease_s, first.account.account_id, first.test_api_key,
        other.account.account_id, other.test_api_key,
    )  # fmt: skip
    ledger, mine = scene.ledger, scene.authorization
    ledger.begin("account", {"active": True})
    ledger.begin(STAYS, {"live": True})
    product = await ask(catalog.CreateProductRequest(code="HAMMER", display_name="Hammer"), mine)
    scene.product_id = product.product.product_id

    async def policy() -> None:
        shown, fields = policy_terms(next(scene.numbers))
        request = catalog.CreatePolicyRequest(
            product_id=scene.product_id,
            display_name="P",
            perpetual=True,
            max_machines=len(PRINTS),
            floating=True,
            allow_machine_transfer=True,
            heartbeat_interval=LONG_AFTER,
            authentication=words.Authentication.MIXED,
            **fields,
        )
        policy_id = (await ask(request, mine)).policy.policy_id
        scene.policies.append(policy_id)
        ledger.begin(f"policy:{policy_id}", shown)

    async def tier() -> None:
        shown, fields = tier_terms(next(scene.numbers))
        request = catalog.CreateTierRequest(product_id=scene.product_id, display_name="T", **fields)
        tier_id = (await ask(request, mine)).tier.tier_id
        scene.tiers.append(tier_id)
        ledger.begin(f"tier:{tier_id}", shown)

    async def customer() -> None:
        subject = f"s{next(scene.numbers)}"
        holder = licenses.CustomerRef(subject_ref=subject)
        request = licenses.CreateLicenseRequest(policy_id=scene.policies[0], customer=holder)
        customer_id = (await ask(request, mine)).license.customer_id
        scene.customers.append(customer_id)
        ledger.begin(f"customer:{customer_id}", {"banned": False, "subject": subject})

    middle = catalog.CreateTierRequest(product_id=scene.product_id, slug=MIDDLE, display_name="M", position=50)
    await asyncio.gather(ask(middle, mine), *(policy() for _ in range(POLICIES)))
    await asyncio.gather(*(tier() for _ in range(TIERS)), *(customer() for _ in range(CUSTOMERS)))
    await asyncio.gather(*(issue(scene, n, ask) for n in range(LICENSES)))
    await let_in_callers(scene, ask)
    return scene


async def issue(scene: Scene, n: int, ask: Any) -> None:
    """The `n`-th license."""
    pair = (scene.customers[2 * n % CUSTOMERS], scene.customers[(2 * n + 1) % CUSTOMERS])
    policy_id, tier_id = scene.random.choice(scene.policies), scene.random.choice(scene.tiers)
    seconds, expire_time = scene.far()
    key = new_key()
    request = licenses.CreateLicenseRequest(
        policy_id=policy_id, tier_id=tier_id, key=key, expire_time=expire_time,
        customer=licenses.CustomerRef(customer_id=pair[0]),
    )  # fmt: skip
    license_id = (await ask(request, scene.authorization)).license.license_id
    scene.licenses.append(license_id)
    scene.holders[license_id], scene.keys[license_id] = pair, key
    scene.recent_keys.append(key)
    scene.ledger.begin(f"key:{key}", {"found": True})
    scene.ledger.begin(f"license:{license_id}", license_value(seconds, policy_id, tier_id, pair[0]))
    scene.ledger.begin(f"seats:{license_id}", {"machines": 0, "cores": 0, "processes": 0})
    for shown in PRINTS:
        scene.ledger.begin(print_line(license_id, shown), None)


async def let_in_callers(scene: Scene, ask: Any) -> None:
    """Those who have other credentials than the key that stays, and a rate that nobody reaches."""
    callers, mine = scene.callers, scene.authorization
    limits = accounts.AccountLimits(**{kind.value: 0 for kind in LimitKind})
    no_limits = accounts.UpdateAccountRequest(
        account_id=scene.account_id, limits=limits, update_mask=FieldMask(paths=["limits"])
    )
    await ask(no_limits, scene.fleet.operator)

    async def key(kind: accounts.ApiKeyKind.Kind.ValueType) -> tuple[str, str]:
        made = await ask(accounts.CreateApiKeyRequest(kind=kind, scopes=sorted(PUBLISHABLE_SCOPES)), mine)
        return f"api_key:{made.api_key.api_key_id}", made.secret

    for kind, count, known in (
        (accounts.ApiKeyKind.SECRET, API_KEYS, scene.api_keys),
        (accounts.ApiKeyKind.PUBLISHABLE, PUBLISHABLE_KEYS, callers.publishable),
    ):
        for _ in range(count):
            line, secret = await key(kind)
            known.good[line] = secret
            scene.ledger.begin(line, {"live": True})
    _, callers.publishable_key = await key(accounts.ApiKeyKind.PUBLISHABLE)
    for n in range(SESSIONS):
        holder = licenses.CustomerRef(subject_ref=f"with a session {n}")
        made = await ask(licenses.CreateLicenseRequest(policy_id=scene.policies[0], customer=holder), mine)
        callers.customers.append(made.license.customer_id)
    # An account of before on the same processes may have left some.
    for binding in (await looked_at(scene, accounts.ListWorkloadBindingsRequest())).workload_bindings:
        gone = accounts.DeleteWorkloadBindingRequest(workload_binding_id=binding.workload_binding_id)
        await ask(gone, scene.fleet.operator)
    for one in scene.fleet.workloads:
        callers.workloads.append(one)
        scene.ledger.begin(f"workload:{one}", None)
    if callers.workloads:  # the last has a second binding, which decides where its own is gone
        pattern = callers.workloads[-1].rpartition("/")[0] + "/*"
        shown, scopes = scopes_of(0)
        binding = accounts.CreateWorkloadBindingRequest(
            spiffe_id_pattern=pattern, account_id=scene.account_id, mode=Mode.TEST, scopes=scopes
        )
        await ask(binding, scene.fleet.operator)
        scene.ledger.begin(f"workload:{callers.workloads[-1]}", shown)
        callers.beneath[callers.workloads[-1]] = shown


async def looked_at(scene: Scene, request: Any) -> Any:
    """A read of the operator's."""
    return await scene.fleet.servers[0].send(request, scene.fleet.operator, 20)
