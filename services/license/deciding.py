"""Validations decided: the facts loaded, the verdict, and what a valid one changes written down before it is given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lictor.license.v1 import validation_service_pb2 as pb

from services.license import callers, keys
from services.license.commands.record_validation import ChangedMeanwhileError, record_validation
from services.license.decision import Asked, User, Verdict, decide
from services.license.facts import uses_limit
from services.license.model import License
from services.license.resources import Resources
from services.license.terms import ExpirationBasis, UsesCounting
from shared.errors import DomainError, Reason
from shared.facts.license import LicenseFacts, Loaded, Wanted
from shared.rpc.context import CallContext
from shared.tenancy import Tenant

_TRIES: Final = 5
"""How often a validation that is counted is decided anew when others change the license meanwhile."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A verdict and the facts behind it, as the validation itself has changed them; `uses` counts its own."""

    loaded: Loaded
    verdict: Verdict
    uses: int


async def decide_one(r: Resources, context: CallContext, request: pb.ValidateLicenseRequest) -> Decided:
    """CALLER_NOT_ALLOWED, RATE_LIMITED, and TRANSACTION_CONFLICT where others change the license with
    every try to count this validation."""
    principal, asked = context.principal, asked_of(request)
    for attempt in range(_TRIES):
        decided = _decided(callers.narrowed(principal, await load(r, principal.tenant, request)), asked)
        if not attempt:
            _charge(context, request, decided.loaded)
        if not _is_recorded(decided):
            return decided
        try:
            async with r.db.transaction(principal.tenant) as tx:
                recorded = await record_validation(tx, actor=principal.key_id, facts=_facts(decided))
        except ChangedMeanwhileError:
            continue
        if recorded is not None:
            return _as_recorded(decided, asked, recorded)
    raise _conflict()


async def decide_many(
    r: Resources, context: CallContext, requests: Sequence[pb.ValidateLicenseRequest]
) -> list[Decided]:
    """Each in its place, by one load. What they count is counted in one transaction, in the order of the licenses' ids, so
    that batches never wait for each other in a circle. RATE_LIMITED; TRANSACTION_CONFLICT, and then nothing is counted."""
    principal, asked = context.principal, [asked_of(request) for request in requests]
    for attempt in range(_TRIES):
        loaded = await r.facts.batch(principal.tenant, [_wanted(r, request) for request in requests])
        if not attempt:
            for request, one in zip(requests, loaded, strict=True):
                _charge(context, request, one)
        decided = [_decided(one, of) for one, of in zip(loaded, asked, strict=True)]
        recorded = [n for n, one in enumerate(decided) if _is_recorded(one)]
        if not recorded:
            return decided
        recorded.sort(key=lambda n: (_facts(decided[n]).license_id, n))
        try:
            async with r.db.transaction(principal.tenant) as tx:
                written: dict[str, License] = {}
                for n in recorded:
                    facts = _after(_facts(decided[n]), written)
                    one = await record_validation(tx, actor=principal.key_id, facts=facts)
                    if one is None:
                        decided[n] = _used_up(decided[n], facts, asked[n])
                        continue
                    written[one.license_id] = one
                    decided[n] = _as_recorded(decided[n], asked[n], one)
        except ChangedMeanwhileError:
            continue
        return decided
    raise _conflict()


async def load(r: Resources, tenant: Tenant, request: pb.ValidateLicenseRequest) -> Loaded:
    """The facts of one license, by its key or id."""
    wanted = _wanted(r, request)
    if wanted.license_id is not None:
        return await r.facts.by_id(tenant, wanted.license_id, wanted.required_tier)
    return await r.facts.by_key(tenant, list(wanted.key_hashes), wanted.required_tier)


def asked_of(request: pb.ValidateLicenseRequest) -> Asked:
    """What a request asks of the license."""
    named = request.required_entitlements
    return Asked(
        product=request.product,
        policy_id=request.policy_id,
        required_tier=request.required_tier,
        user=_user(request.user) if request.HasField("user") else None,
        entitlements=tuple(named.feature_keys) if request.HasField("required_entitlements") else None,
    )


def _charge(context: CallContext, request: pb.ValidateLicenseRequest, loaded: Loaded) -> None:
    """Counts against the license; a key that there is not has a rate of its own."""
    facts = loaded.facts
    key = keys.canonical(request.license.license_key)
    context.charge_license(str(hash(key)) if facts is None else facts.license_id)


def _used_up(decided: Decided, facts: LicenseFacts, asked: Asked) -> Decided:
    """The same validation where no use was left to count: the batch itself may have taken the last."""
    limit = uses_limit(facts) or 0
    used_up = Loaded(decided.loaded.at, replace(facts, uses=limit))
    return Decided(used_up, decide(used_up.facts, asked, used_up.at), limit)


def _decided(loaded: Loaded, asked: Asked) -> Decided:
    return Decided(loaded, decide(loaded.facts, asked, loaded.at), 0 if loaded.facts is None else loaded.facts.uses)


def _as_recorded(decided: Decided, asked: Asked, license_: License) -> Decided:
    facts = _after(_facts(decided), {license_.license_id: license_})
    return Decided(Loaded(decided.loaded.at, facts), decide(facts, asked, decided.loaded.at), license_.uses)


def _after(facts: LicenseFacts, written: Mapping[str, License]) -> LicenseFacts:
    """The facts of a license whose duration a validation may have let begin."""
    license_ = written.get(facts.license_id)
    if license_ is None:
        return facts
    return replace(facts, expires_at=license_.expires_at, anchored=license_.expiry_anchored_at is not None)


def _is_recorded(decided: Decided) -> bool:
    """Whether the validation changes something: its license counts it, or has waited for it to begin."""
    facts = decided.loaded.facts
    if facts is None or not decided.verdict.valid:
        return False
    counted = facts.uses_counted_by == UsesCounting.VALIDATION and uses_limit(facts) is not None
    return counted or (not facts.anchored and facts.expiration_basis == ExpirationBasis.FROM_FIRST_VALIDATION)


def _facts(decided: Decided) -> LicenseFacts:
    assert decided.loaded.facts is not None
    return decided.loaded.facts


def _wanted(r: Resources, request: pb.ValidateLicenseRequest) -> Wanted:
    if request.license.WhichOneof("selector") == "license_id":
        return Wanted((), request.license.license_id, request.required_tier)
    return Wanted(r.hasher.candidates(keys.canonical(request.license.license_key)), None, request.required_tier)


def _user(scope: pb.UserScope) -> User:
    match scope.WhichOneof("user"):
        case "customer_id":
            return User(customer_id=scope.customer_id)
        case "email":
            return User(email_hash=hashlib.sha256(scope.email.lower().encode()).digest())
        case _:
            return User(subject_ref=scope.subject_ref)


def _conflict() -> DomainError:
    return DomainError(Reason.TRANSACTION_CONFLICT, "the license changed with every try; try again")
