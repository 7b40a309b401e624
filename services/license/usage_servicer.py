"""LicenseService's methods on check-ins and uses: protobuf to model and back, nothing else."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from lictor.license.v1 import license_service_pb2 as pb

from services.license import callers, customer_access, fields, render
from services.license.commands.change_uses import UsesChange, change_uses
from services.license.commands.check_in_license import check_in_license
from services.license.model import Action
from services.license.resources import Resources
from shared.db.pool import Transaction
from shared.rpc.context import CallContext
from shared.rpc.writes import WriteResponse

R = TypeVar("R", bound=WriteResponse)


class UsageMethods:
    """What the software under a license reports."""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def CheckInLicense(
        self, request: pb.CheckInLicenseRequest, context: CallContext
    ) -> pb.CheckInLicenseResponse:
        fields.check(request)
        callers.refuse_other_license(context.principal, request.license_id)

        async def work(tx: Transaction) -> pb.CheckInLicenseResponse:
            changed = await check_in_license(
                tx, actor=context.principal.key_id, license_id=request.license_id, reason=request.reason
            )
            license_ = customer_access.shown(context.principal, render.license_(changed, tx.now))
            return pb.CheckInLicenseResponse(license=license_)

        return await self._r.writer.run(context, request, pb.CheckInLicenseResponse, work)

    async def IncrementUses(self, request: pb.IncrementUsesRequest, context: CallContext) -> pb.IncrementUsesResponse:
        uses = request.uses if request.HasField("uses") else 1
        return await self._change_uses(context, request, Action.INCREMENT_USES, uses, pb.IncrementUsesResponse)

    async def DecrementUses(self, request: pb.DecrementUsesRequest, context: CallContext) -> pb.DecrementUsesResponse:
        uses = request.uses if request.HasField("uses") else 1
        return await self._change_uses(context, request, Action.DECREMENT_USES, uses, pb.DecrementUsesResponse)

    async def ResetUses(self, request: pb.ResetUsesRequest, context: CallContext) -> pb.ResetUsesResponse:
        return await self._change_uses(context, request, Action.RESET_USES, 0, pb.ResetUsesResponse)

    async def _change_uses(self, context: CallContext, request: Any, action: Action, uses: int, response: type[R]) -> R:
        fields.check(request)
        wanted = UsesChange(action, request.license_id, uses, request.reason)

        async def work(tx: Transaction) -> R:
            changed = await change_uses(tx, actor=context.principal.key_id, wanted=wanted)
            return cast("Any", response)(license=render.license_(changed, tx.now))

        return await self._r.writer.run(context, request, response, work)
