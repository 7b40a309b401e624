"""ValidationService: load the facts in one statement, decide, answer."""

from __future__ import annotations

from typing import Final

from lictor.common.v1.common_pb2 import Decision, Freshness, View
from lictor.license.v1 import validation_service_pb2 as pb

from services.license import fields, keys, render, store
from services.license.decision import Asked, Code, decide
from services.license.model import License
from services.license.resources import Resources
from shared.facts.license import Loaded
from shared.ids import Prefix, new_id
from shared.rpc.context import CallContext
from shared.tenancy import Tenant

_WITH_LICENSE: Final = frozenset({View.BASIC, View.FULL})
_WIRE: Final = {code: pb.ValidationCode.Code.Value(code.name) for code in Code}


class ValidationServicer:
    """May this license be used, now?"""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def ValidateLicense(
        self, request: pb.ValidateLicenseRequest, context: CallContext
    ) -> pb.ValidateLicenseResponse:
        fields.check(request)
        tenant = context.principal.tenant
        loaded = await self._load(tenant, request)
        verdict = decide(loaded.facts, Asked(request.required_tier), loaded.at)
        response = pb.ValidateLicenseResponse(
            decision=Decision(
                decision_id=new_id(Prefix.DECISION),
                evaluated_at=render.timestamp(loaded.at),
                freshness=Freshness.RECORD,
                valid_until=render.timestamp(verdict.valid_until),
                recheck_after=render.duration(verdict.recheck_after),
            ),
            valid=verdict.valid,
            code=_WIRE[verdict.code],
            all_codes=[_WIRE[code] for code in verdict.all_codes],
            detail=verdict.detail,
        )
        if loaded.facts is not None:
            response.license_id = loaded.facts.license_id
            response.product_id = loaded.facts.product_id
            response.policy_id = loaded.facts.policy_id
            response.is_trial = loaded.facts.is_trial
            response.tier_id = loaded.facts.tier_id or ""
            response.tier = loaded.facts.tier or ""
            if loaded.facts.expires_at is not None:
                response.expire_time.FromDatetime(loaded.facts.expires_at)
            if request.view in _WITH_LICENSE:
                found = await self._license(tenant, loaded.facts.license_id)
                if found is not None:
                    full = request.view == View.FULL
                    response.license.CopyFrom(render.license_(found, loaded.at, metadata=full))
        return response

    async def _load(self, tenant: Tenant, request: pb.ValidateLicenseRequest) -> Loaded:
        if request.license.WhichOneof("selector") == "license_id":
            return await self._r.facts.by_id(tenant, request.license.license_id, request.required_tier)
        hashes = self._r.hasher.candidates(keys.canonical(request.license.license_key))
        return await self._r.facts.by_key(tenant, hashes, request.required_tier)

    async def _license(self, tenant: Tenant, license_id: str) -> License | None:
        async with self._r.db.transaction(tenant, read_only=True) as tx:
            return await store.get_license(tx, license_id)
