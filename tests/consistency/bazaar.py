"""An account with every kind of caller in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from lictor.account.v1 import account_service_pb2 as accounts
from lictor.common.v1.common_pb2 import (
    FingerprintSet,
    LicenseSelector,
    MachineIdentity,
    Mode,
    NamedFingerprint,
    RevisionToken,
)
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import customer_service_pb2 as customers
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.license.v1 import policy_terms_pb2 as words
from lictor.machine.v1.activation_service_pb2 import ActivateMachineRequest

from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.errors import DomainError
from shared.rules.limits import LimitKind
from shared.tenancy import ACCOUNT_SCOPES, PUBLISHABLE_SCOPES
from tests.helpers.builders import at

MINUTE: Final = timedelta(minutes=1)
DOMAIN: Final = "bazaar.test"
PARTS: Final = (
    NamedFingerprint(name="cpu", fingerprint="cpu-serial"), NamedFingerprint(name="gpu", fingerprint="gpu-serial"),
)  # fmt: skip
"""What every machine is made of."""
DEAD_AFTER: Final = timedelta(seconds=480)
"""A machine that is not heard of, where its policy requires heartbeats: the interval, and what it may be late."""


@dataclass(frozen=True)
class Caller:
    """What somebody shows: an `authorization`, or None and the URI in a certificate."""

    authorization: str | None
    peer_identity: str = ""


def identity_of(n: int) -> MachineIdentity:
    """What the machine of the license `n` is known by."""
    if n % 2 == 0:
        return MachineIdentity(fingerprint=f"fingerprint-{n}")
    prints = [NamedFingerprint(name=name, fingerprint=f"{name}-of-{n}") for name in ("board", "disk")]
    return MachineIdentity(fingerprints=FingerprintSet(fingerprints=prints))


class Hands(Protocol):
    """Makes calls for whoever sets the scene; a refusal is a DomainError."""

    async def __call__(self, request: Any, authorization: str) -> Any: ...


async def new_account(do: Hands, operator: str) -> accounts.CreateAccountResponse:
    """One whose callers may call as often as they like."""
    made = await do(accounts.CreateAccountRequest(display_name="Bazaar"), operator)
    limits = accounts.AccountLimits(**{kind.value: 0 for kind in LimitKind})
    mask = FieldMask(paths=["limits"])
    await do(
        accounts.UpdateAccountRequest(account_id=made.account.account_id, limits=limits, update_mask=mask), operator
    )
    return made


@dataclass(repr=False)
class Bazaar:
    """The account. `keys` are the license keys of its licenses by number, the last of each first."""

    do: Hands
    operator: str
    account_id: str
    secret: str
    live_secret: str
    now: Callable[[], datetime]
    product_id: str = ""
    tiers: list[str] = field(default_factory=list[str])
    policies: list[str] = field(default_factory=list[str])
    licenses: list[str] = field(default_factory=list[str])
    keys: list[list[str]] = field(default_factory=list[list[str]])
    customers: list[str] = field(default_factory=list[str])
    machines: dict[int, str] = field(default_factory=dict[int, str])
    """The machines that licenses have or had last, by the numbers of the licenses."""
    api_keys: dict[str, str] = field(default_factory=dict[str, str])
    """Ids of API keys, by the names of their callers."""
    bindings: dict[str, str] = field(default_factory=dict[str, str])
    callers: dict[str, Caller] = field(default_factory=dict[str, Caller])
    foreign_key: str = ""
    """A license key of the live mode, and the id of its license."""
    foreign_id: str = ""
    moments: list[datetime] = field(default_factory=list[datetime])
    """When time alone changes something."""
    token: RevisionToken = field(default_factory=RevisionToken)
    done: int = 0
    """How many of the changes were made, and not refused."""

    async def make(self, request: Any, authorization: str = "") -> Any:
        """A call that has to go well."""
        answer = await self.do(request, authorization or f"Bearer {self.secret}")
        if hasattr(answer, "revision_token"):
            self.token = answer.revision_token
        return answer

    async def attempt(self, request: Any, authorization: str = "") -> Any:
        """One that may be refused, which changes nothing; None then."""
        try:
            answer = await self.make(request, authorization)
        except DomainError:
            return None
        self.done += 1
        return answer

    async def activate(self, n: int) -> None:
        """A machine for the license `n`, known by one fingerprint where that is even, else by two. It may be refused."""
        request = ActivateMachineRequest(
            license=LicenseSelector(license_id=self.licenses[n]), identity=identity_of(n), components=PARTS
        )
        made = await self.attempt(request)
        if made is not None:
            self.machines[n] = made.machine.machine_id
            self.moments.append(self.now() + DEAD_AFTER)

    def soon(self, minutes: int) -> datetime:
        """So many minutes ahead, noted."""
        moment = self.now() + minutes * MINUTE
        self.moments.append(moment)
        return moment

    async def add_key(self, name: str, *scopes: str, publishable: bool = False, **more: Any) -> None:
        """An API key and its caller."""
        kind = accounts.ApiKeyKind.PUBLISHABLE if publishable else accounts.ApiKeyKind.SECRET
        made = await self.make(accounts.CreateApiKeyRequest(scopes=scopes, kind=kind, **more))
        self.api_keys[name] = made.api_key.api_key_id
        self.callers[name] = Caller(f"Bearer {made.secret}")

    async def bind(self, name: str, path: str, *scopes: str) -> None:
        """A workload binding, and a caller whom it covers."""
        pattern = f"spiffe://{self.account_id.replace('_', '-')}.{DOMAIN}{path}"
        made = await self.make(
            accounts.CreateWorkloadBindingRequest(
                spiffe_id_pattern=pattern, account_id=self.account_id, mode=Mode.TEST, scopes=scopes
            ),
            self.operator,
        )
        self.bindings[name] = made.workload_binding.workload_binding_id
        self.callers[name] = Caller(None, pattern.replace("*", "a/b"))

    def by_license_key(self, publishable: str, key: str) -> Caller:
        """Whoever shows a publishable key and a license key."""
        secret = (self.callers[publishable].authorization or "").partition(" ")[2]
        return Caller(f"License {secret}:{key}")


async def open_bazaar(
    do: Hands, operator: str, now: Callable[[], datetime], other: accounts.CreateAccountResponse
) -> Bazaar:
    """Three policies, four licenses, two customers, and callers of all kinds; `other` is another account."""
    made = await new_account(do, operator)
    it = Bazaar(do, operator, made.account.account_id, made.test_api_key, made.live_api_key, now)
    it.product_id = (await it.make(catalog.CreateProductRequest(code="AA", display_name="A"))).product.product_id
    for slug, position in (("free", 0), ("pro", 1)):
        tier = catalog.CreateTierRequest(product_id=it.product_id, slug=slug, display_name=slug, position=position)
        it.tiers.append((await it.make(tier)).tier.tier_id)
    by_key = words.Authentication
    all_terms: Sequence[dict[str, Any]] = (
        {"authentication": by_key.MIXED, "grace_period": Duration(seconds=60)},
        {
            "require_product_scope": True,
            "require_user_scope": True,
            "require_heartbeat": True,
            "heartbeat_basis": words.HeartbeatBasis.FROM_CREATION,
            "heartbeat_interval": Duration(seconds=450),
        },
        {"authentication": by_key.LICENSE, "max_uses": 2},
    )
    for terms in all_terms:
        policy = catalog.CreatePolicyRequest(
            product_id=it.product_id,
            display_name="P",
            perpetual=True,
            max_machines=2,
            require_fingerprint=False,
            **terms,
        )
        it.policies.append((await it.make(policy)).policy.policy_id)
    ada, eve = licenses.CustomerRef(email="ada@example.com"), licenses.CustomerRef(subject_ref="u-1")
    issues: Sequence[tuple[int, dict[str, Any]]] = (
        (0, {"customer": ada, "tier_id": it.tiers[1], "expire_time": at(it.soon(9))}),
        (1, {"customer": eve, "tier_id": it.tiers[0]}),
        (0, {"start_time": at(it.soon(6))}),
        (2, {}),
    )
    for n, terms in issues:
        issued = await it.make(licenses.CreateLicenseRequest(policy_id=it.policies[n], **terms))
        it.licenses.append(issued.license.license_id)
        it.keys.append([issued.key])
        if issued.license.customer_id:
            it.customers.append(issued.license.customer_id)
    it.moments.append(it.moments[0] + MINUTE)
    for n in (0, 1):
        await it.activate(n)
    live = f"Bearer {it.live_secret}"
    product = await it.make(catalog.CreateProductRequest(code="AA", display_name="A"), live)
    policy = await it.make(
        catalog.CreatePolicyRequest(
            product_id=product.product.product_id, display_name="P", perpetual=True, max_machines=1, require_fingerprint=False,
            authentication=by_key.LICENSE,
        ),
        live,
    )  # fmt: skip
    issued = await it.make(licenses.CreateLicenseRequest(policy_id=policy.policy.policy_id), live)
    it.foreign_key, it.foreign_id = issued.key, issued.license.license_id
    await _let_in_callers(it, other)
    return it


async def _let_in_callers(it: Bazaar, other: accounts.CreateAccountResponse) -> None:
    both = sorted(PUBLISHABLE_SCOPES)
    await it.add_key("narrow", "licenses:validate")
    await it.add_key("brief", *sorted(ACCOUNT_SCOPES), expire_time=at(it.soon(7)))
    await it.add_key("blind", "products:read")
    await it.add_key("pk", *both, publishable=True)
    await it.add_key("pk brief", *both, publishable=True, expire_time=at(it.soon(8)))
    await it.add_key("pk without", "licenses:checkin", publishable=True)
    await it.bind("workload", "/ns/api", "licenses:validate", "licenses:read")
    await it.bind("workload of many", "/*", "licenses:validate")
    session = await it.make(
        customers.CreateCustomerSessionRequest(customer_id=it.customers[0], ttl=Duration(seconds=600))
    )
    it.moments.append(it.now() + 10 * MINUTE)
    known = it.callers["pk"].authorization or ""
    it.callers |= {
        "secret": Caller(f"Bearer {it.secret}"),
        "live": Caller(f"Bearer {it.live_secret}"),
        "other account": Caller(f"Bearer {other.test_api_key}"),
        "operator": Caller(it.operator),
        "session": Caller(f"Bearer {session.token}"),
        "stranger": Caller(None, f"spiffe://other.{DOMAIN}/ns/api"),
        "guessed": Caller(f"Bearer {api_keys.generate(KeyPrefix.SECRET_TEST)}"),
        "guessed pk": Caller(f"License {api_keys.generate(KeyPrefix.PUBLISHABLE_TEST)}:{it.keys[0][0]}"),
        "guessed session": Caller(f"Bearer {api_keys.generate(KeyPrefix.SESSION_TEST)}"),
        "mistyped": Caller(known[:-1] + ("a" if known[-1] != "a" else "b")),
        "nobody": Caller(None),
        "empty": Caller(""),
        **{f"license {n}": it.by_license_key("pk", keys[0]) for n, keys in enumerate(it.keys)},
        "license brief": it.by_license_key("pk brief", it.keys[0][0].lower()),
        "license of live": it.by_license_key("pk", it.foreign_key),
        "license guessed": it.by_license_key("pk", "NOPE-0000"),
    }


GOOD: Final = (
    "secret", "narrow", "brief", "pk", "pk brief", "workload", "workload of many", "live", "license 0", "license 2",
    "license 3", "license brief",
)  # fmt: skip
BAD: Final = (
    "blind", "pk without", "session", "other account", "operator", "stranger", "guessed", "guessed pk", "guessed session",
    "mistyped", "nobody", "empty", "license 1", "license of live", "license guessed",
)  # fmt: skip
"""Those who may not ask for validations, or not of these licenses, or are nobody at all."""


def with_id(request: Any) -> Any:
    """A write with a request id of its own."""
    if "request_id" in request.DESCRIPTOR.fields_by_name:
        request.request_id = str(uuid4())
    return request
