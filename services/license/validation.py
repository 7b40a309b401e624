"""ValidationService: load the facts in one statement, decide, answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from lictor.common.v1.common_pb2 import Decision, Freshness, View
from lictor.license.v1 import validation_service_pb2 as pb

from services.license import fields, keys, render, store
from services.license.commands.record_validation import record_validation
from services.license.decision import Asked, Code, User, Verdict, decide
from services.license.facts import next_check_in, uses_limit
from services.license.model import License
from services.license.periods import grace_end
from services.license.resources import Resources
from services.license.terms import ExpirationBasis, UsesCounting
from shared.errors import DomainError, Reason
from shared.facts.license import LicenseFacts, Loaded
from shared.ids import Prefix, new_id
from shared.rpc.context import CallContext
from shared.tenancy import Tenant

_WITH_LICENSE: Final = frozenset({View.BASIC, View.FULL})
_WIRE: Final = {code: pb.ValidationCode.Code.Value(code.name) for code in Code}
_TRIES: Final = 5
"""How often a validation that is counted is decided anew when others change the license meanwhile."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A verdict, and the facts behind it: those of the load, or as the validation itself has changed them."""

    loaded: Loaded
    verdict: Verdict
    uses: int


class ValidationServicer:
    """May this license be used, now?"""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def ValidateLicense(
        self, request: pb.ValidateLicenseRequest, context: CallContext
    ) -> pb.ValidateLicenseResponse:
        fields.check(request)
        tenant = context.principal.tenant
        decided = await self._decide(tenant, request, context.principal.key_id)
        response = _answer(decided)
        facts = decided.loaded.facts
        if facts is not None and request.view in _WITH_LICENSE:
            found = await self._license(tenant, facts.license_id)
            if found is not None:
                full = request.view == View.FULL
                response.license.CopyFrom(render.license_(found, decided.loaded.at, metadata=full))
        return response

    async def _decide(self, tenant: Tenant, request: pb.ValidateLicenseRequest, actor: str) -> Decided:
        """The verdict; one that a validation changes something for is recorded before it is given."""
        asked = _asked(request)
        for _ in range(_TRIES):
            loaded = await self._load(tenant, request)
            verdict = decide(loaded.facts, asked, loaded.at)
            facts = loaded.facts
            if facts is None or not verdict.valid or not _is_recorded(facts):
                return Decided(loaded, verdict, 0 if facts is None else facts.uses)
            async with self._r.db.transaction(tenant) as tx:
                recorded = await record_validation(tx, actor=actor, license_id=facts.license_id)
            if recorded is not None:
                anchored = Loaded(loaded.at, replace(facts, expires_at=recorded.expires_at))
                return Decided(anchored, decide(anchored.facts, asked, loaded.at), recorded.uses)
        raise DomainError(Reason.TRANSACTION_CONFLICT, "the license changed with every try; try again")

    async def _load(self, tenant: Tenant, request: pb.ValidateLicenseRequest) -> Loaded:
        if request.license.WhichOneof("selector") == "license_id":
            return await self._r.facts.by_id(tenant, request.license.license_id, request.required_tier)
        hashes = self._r.hasher.candidates(keys.canonical(request.license.license_key))
        return await self._r.facts.by_key(tenant, hashes, request.required_tier)

    async def _license(self, tenant: Tenant, license_id: str) -> License | None:
        async with self._r.db.transaction(tenant, read_only=True) as tx:
            return await store.get_license(tx, license_id)


def _is_recorded(facts: LicenseFacts) -> bool:
    """Whether a valid validation changes something: its license counts it, or has waited for it to begin."""
    counted = facts.uses_counted_by == UsesCounting.VALIDATION and uses_limit(facts) is not None
    return counted or (not facts.anchored and facts.expiration_basis == ExpirationBasis.FROM_FIRST_VALIDATION)


def _asked(request: pb.ValidateLicenseRequest) -> Asked:
    named = request.required_entitlements
    return Asked(
        product=request.product,
        policy_id=request.policy_id,
        required_tier=request.required_tier,
        user=_user(request.user) if request.HasField("user") else None,
        entitlements=tuple(named.feature_keys) if request.HasField("required_entitlements") else None,
    )


def _user(scope: pb.UserScope) -> User:
    match scope.WhichOneof("user"):
        case "customer_id":
            return User(customer_id=scope.customer_id)
        case "email":
            return User(email_hash=hashlib.sha256(scope.email.lower().encode()).digest())
        case _:
            return User(subject_ref=scope.subject_ref)


def _answer(decided: Decided) -> pb.ValidateLicenseResponse:
    verdict, at, facts = decided.verdict, decided.loaded.at, decided.loaded.facts
    response = pb.ValidateLicenseResponse(
        decision=Decision(
            decision_id=new_id(Prefix.DECISION),
            evaluated_at=render.timestamp(at),
            freshness=Freshness.RECORD,
            valid_until=render.timestamp(verdict.valid_until),
            recheck_after=render.duration(verdict.recheck_after),
        ),
        valid=verdict.valid,
        code=_WIRE[verdict.code],
        all_codes=[_WIRE[code] for code in verdict.all_codes],
        detail=verdict.detail,
        missing=verdict.missing,
    )
    if facts is not None:
        response.license_id = facts.license_id
        response.product_id = facts.product_id
        response.policy_id = facts.policy_id
        response.is_trial = facts.is_trial
        response.tier_id = facts.tier_id or ""
        response.tier = facts.tier or ""
        limit = uses_limit(facts)
        if limit is not None:
            response.uses_left = max(0, limit - decided.uses)
        for field, moment in (
            (response.expire_time, facts.expires_at),
            (response.grace_end_time, grace_end(facts.expires_at, facts.grace_period)),
            (response.check_in_due_time, next_check_in(facts)),
        ):
            if moment is not None:
                field.FromDatetime(moment)
    return response
