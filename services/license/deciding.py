"""Validations decided: the facts loaded, the verdict, and what a valid one changes written down before it is given."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lictor.common.v1.common_pb2 import Consistency
from lictor.license.v1 import validation_service_pb2 as pb

from services.license import callers, grace, keys
from services.license.asked import Asked, User
from services.license.commands.record_validation import ChangedMeanwhileError, record_validation
from services.license.consistency import needs
from services.license.decision import Verdict, decide
from services.license.facts import is_answered_by_record, uses_limit
from services.license.identities import machine_asked
from services.license.model import License
from services.license.resources import Resources
from services.license.terms import ExpirationBasis, UsesCounting
from shared.errors import DomainError, Reason
from shared.facts.license import LicenseFacts, Loaded, Wanted
from shared.facts.machines import MachineAsked
from shared.freshness.reader import Source
from shared.rpc.context import CallContext
from shared.rules.expiry import FROM_FIRST_ACTIVATION
from shared.tenancy import Principal

SLICE: Final = 100
"""Decisions between two turns of others: about two milliseconds."""
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
    principal, machine = context.principal, machine_asked(r.fingerprints, context, request)
    wanted, asked = wanted_of(r, request, machine), asked_of(request, machine)
    for attempt in range(_TRIES):
        loaded = await _load(r, principal, wanted, request.consistency, recorded=attempt > 0)
        decided = decided_of(callers.narrowed(principal, loaded), asked)
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
    r: Resources, context: CallContext, requests: Sequence[pb.ValidateLicenseRequest], asked_for: Consistency
) -> Sequence[Decided | DomainError]:
    """Each in its place, all at one state of the record. What they count is counted in one transaction, in the order of the
    licenses' ids, so that batches never wait for each other in a circle. RATE_LIMITED; TRANSACTION_CONFLICT, and then nothing
    is counted. While the record is away some may be answered, and others refused as RECORD_UNREACHABLE."""
    principal = context.principal
    machines = [machine_asked(r.fingerprints, context, request) for request in requests]
    asked = [asked_of(request, machine) for request, machine in zip(requests, machines, strict=True)]
    wanted = [wanted_of(r, request, machine) for request, machine in zip(requests, machines, strict=True)]
    for attempt in range(_TRIES):
        found = await _load_many(r, principal, wanted, asked_for, recorded=attempt > 0)
        loaded = [one for one in found if isinstance(one, Loaded)]
        if not attempt:
            for request, one in zip(requests, found, strict=True):
                if isinstance(one, Loaded):
                    _charge(context, request, one)
        if len(loaded) < len(found):
            return [
                decided_of(one, of) if isinstance(one, Loaded) else one for one, of in zip(found, asked, strict=True)
            ]
        decided = await _all_decided(loaded, asked)
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


async def load_recorded(r: Resources, context: CallContext, request: pb.ValidateLicenseRequest) -> tuple[Loaded, Asked]:
    """The facts of one license as the record has them, and what is asked of it."""
    machine = machine_asked(r.fingerprints, context, request)
    loaded = await r.facts.recorded(context.principal.tenant, wanted_of(r, request, machine))
    return loaded, asked_of(request, machine)


async def _load(
    r: Resources, principal: Principal, wanted: Wanted, asked_for: Consistency, *, recorded: bool
) -> Loaded:
    """The facts of one license, as fresh as the request asks for."""
    tenant, need = principal.tenant, needs(r.writer.tokens, asked_for)
    if recorded or need.record:
        grace.refuse(principal)
        return await r.facts.recorded(tenant, wanted)
    found = None
    if need.after is None and principal.stale_as_of is None:
        found = r.facts.held(tenant, wanted)
    if found is None:
        found = await grace.load_one(r, principal, wanted, need.after)
    return await r.facts.recorded(tenant, wanted) if is_for_the_record(found) else found


async def _load_many(
    r: Resources, principal: Principal, wanted: Sequence[Wanted], asked_for: Consistency, *, recorded: bool
) -> Sequence[Loaded | DomainError]:
    tenant, need = principal.tenant, needs(r.writer.tokens, asked_for)
    if recorded or need.record:
        grace.refuse(principal)
        return await r.facts.many_recorded(tenant, wanted)
    found = await grace.load_many(r, principal, wanted, need.after)
    lacking = any(isinstance(one, Loaded) and is_for_the_record(one) for one in found)
    return await r.facts.many_recorded(tenant, wanted) if lacking else found


def is_for_the_record(loaded: Loaded) -> bool:
    """Whether only the record can answer: it counts uses, and knows whether a duration has begun."""
    return loaded.source is not Source.RECORD and loaded.facts is not None and is_answered_by_record(loaded.facts)


def asked_of(request: pb.ValidateLicenseRequest, machine: MachineAsked | None) -> Asked:
    """What a request asks of the license, and of the machine that it names."""
    named = request.required_entitlements
    return Asked(
        product=request.product,
        policy_id=request.policy_id,
        required_tier=request.required_tier,
        user=_user(request.user) if request.HasField("user") else None,
        entitlements=tuple(named.feature_keys) if request.HasField("required_entitlements") else None,
        machine=machine,
    )


async def _all_decided(loaded: Sequence[Loaded], asked: Sequence[Asked]) -> list[Decided]:
    """Facts do not change: others have their turn in between."""
    decided: list[Decided] = []
    for one, of in zip(loaded, asked, strict=True):
        if len(decided) % SLICE == SLICE - 1:
            await asyncio.sleep(0)
        decided.append(decided_of(one, of))
    return decided


def _charge(context: CallContext, request: pb.ValidateLicenseRequest, loaded: Loaded) -> None:
    """Counts against the license; a key that there is not has a rate of its own."""
    facts = loaded.facts
    key = keys.canonical(request.license.license_key)
    context.charge_license(str(hash(key)) if facts is None else facts.license_id)


def _used_up(decided: Decided, facts: LicenseFacts, asked: Asked) -> Decided:
    """The same validation where no use was left to count: the batch itself may have taken the last."""
    limit = uses_limit(facts) or 0
    used_up = replace(decided.loaded, facts=replace(facts, uses=limit))
    return Decided(used_up, decide(used_up.facts, asked, used_up.now), limit)


def decided_of(loaded: Loaded, asked: Asked) -> Decided:
    """The decision on what is known of a license."""
    return Decided(loaded, decide(loaded.facts, asked, loaded.now), 0 if loaded.facts is None else loaded.facts.uses)


def _as_recorded(decided: Decided, asked: Asked, license_: License) -> Decided:
    facts = _after(_facts(decided), {license_.license_id: license_})
    return Decided(replace(decided.loaded, facts=facts), decide(facts, asked, decided.loaded.now), license_.uses)


def _after(facts: LicenseFacts, written: Mapping[str, License]) -> LicenseFacts:
    """The facts of a license whose duration a validation may have let begin."""
    license_ = written.get(facts.license_id)
    if license_ is None:
        return facts
    if facts.expiration_basis == FROM_FIRST_ACTIVATION:
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


def wanted_of(r: Resources, request: pb.ValidateLicenseRequest, machine: MachineAsked | None) -> Wanted:
    """The license that a request names, with the machine."""
    if request.license.WhichOneof("selector") == "license_id":
        return Wanted((), request.license.license_id, machine)
    return Wanted(r.hasher.candidates(keys.canonical(request.license.license_key)), None, machine)


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
