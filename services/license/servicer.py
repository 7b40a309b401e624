"""LicenseService: protobuf to model and back, nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar, cast

from google.protobuf.json_format import MessageToDict
from lictor.license.v1 import license_service_pb2 as pb

from services.license import customer_access, event_store, fields, queries, render, store
from services.license.commands.change_license_status import StatusChange, change_license_status
from services.license.commands.change_policy import PolicyChange, change_license_policy
from services.license.commands.change_tier import TierChange, change_license_tier
from services.license.commands.create_license import create_license
from services.license.commands.delete_license import delete_license
from services.license.commands.reveal_license_key import reveal_license_key
from services.license.commands.rotate_license_key import KeyRotation, rotate_license_key
from services.license.commands.transfer_license import Transfer, transfer_license
from services.license.commands.update_license import update_license
from services.license.import_servicer import serve_import
from services.license.model import Action, Status
from services.license.usage_servicer import UsageMethods
from services.license.wanted import customer_name, new_license, overrides_of
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.events.registry import resolve
from shared.rpc.context import CallContext
from shared.rpc.fields import masked, to_datetime, to_timedelta
from shared.rpc.pages import page_of
from shared.rpc.writes import WriteResponse

R = TypeVar("R", bound=WriteResponse)


class LicenseServicer(UsageMethods):
    """Licenses and their states."""

    async def CreateLicense(self, request: pb.CreateLicenseRequest, context: CallContext) -> pb.CreateLicenseResponse:
        fields.check(request)
        wanted = new_license(request, request.product_id)

        async def work(tx: Transaction) -> pb.CreateLicenseResponse:
            made, key = await create_license(tx, self._r.keeper, actor=context.principal.key_id, wanted=wanted)
            return pb.CreateLicenseResponse(license=render.license_(made, tx.now), key=key)

        return await self._r.writer.run(context, request, pb.CreateLicenseResponse, work)

    async def GetLicense(self, request: pb.GetLicenseRequest, context: CallContext) -> pb.GetLicenseResponse:
        fields.check(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if request.license_id:
                found = await store.get_license(tx, request.license_id)
            else:
                found = await store.get_license_by_external_id(tx, request.external_id)
        found = customer_access.held_by(context.principal, found)
        if found is None:
            raise not_found(Reason.LICENSE_NOT_FOUND, request.license_id or request.external_id)
        return pb.GetLicenseResponse(license=customer_access.shown(context.principal, render.license_(found, tx.now)))

    async def ListLicenses(self, request: pb.ListLicensesRequest, context: CallContext) -> pb.ListLicensesResponse:
        fields.check(request)
        status = Status(pb.LicenseStatus.Status.Name(request.status)) if request.status else None
        principal = context.principal
        if customer_access.is_customer(principal) and request.customer_id not in {"", principal.customer_id}:
            return pb.ListLicensesResponse()
        narrowed = store.LicenseFilter(
            request.product_id,
            request.policy_id,
            principal.customer_id or request.customer_id,
            request.customer_email,
            request.tier_id,
            status,
        )
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"licenses|{narrowed}",
            read=lambda tx, after, limit: store.page_of_licenses(tx, after, limit, narrowed),
            id_of=lambda found: found.license_id,
            rendered=lambda found, now: customer_access.shown(principal, render.license_(found, now)),
        )
        return pb.ListLicensesResponse(licenses=page.items, next_page_token=page.next_token)

    async def UpdateLicense(self, request: pb.UpdateLicenseRequest, context: CallContext) -> pb.UpdateLicenseResponse:
        fields.check(request)
        changes = dict(_value(request, field) for field in masked(request, fields.LICENSE_FIELDS))

        async def work(tx: Transaction) -> pb.UpdateLicenseResponse:
            changed = await update_license(
                tx, actor=context.principal.key_id, license_id=request.license_id, etag=request.etag, changes=changes
            )
            return pb.UpdateLicenseResponse(license=render.license_(changed, tx.now))

        return await self._r.writer.run(context, request, pb.UpdateLicenseResponse, work)

    async def SuspendLicense(
        self, request: pb.SuspendLicenseRequest, context: CallContext
    ) -> pb.SuspendLicenseResponse:
        return await self._change(context, request, Action.SUSPEND, pb.SuspendLicenseResponse)

    async def ReinstateLicense(
        self, request: pb.ReinstateLicenseRequest, context: CallContext
    ) -> pb.ReinstateLicenseResponse:
        return await self._change(context, request, Action.REINSTATE, pb.ReinstateLicenseResponse)

    async def RenewLicense(self, request: pb.RenewLicenseRequest, context: CallContext) -> pb.RenewLicenseResponse:
        return await self._change(context, request, Action.RENEW, pb.RenewLicenseResponse)

    async def RevokeLicense(self, request: pb.RevokeLicenseRequest, context: CallContext) -> pb.RevokeLicenseResponse:
        return await self._change(context, request, Action.REVOKE, pb.RevokeLicenseResponse)

    async def BanLicense(self, request: pb.BanLicenseRequest, context: CallContext) -> pb.BanLicenseResponse:
        return await self._change(context, request, Action.BAN, pb.BanLicenseResponse)

    async def ChangeTier(self, request: pb.ChangeTierRequest, context: CallContext) -> pb.ChangeTierResponse:
        fields.check(request)
        wanted = TierChange(request.license_id, request.tier_id, request.etag, request.reason)

        async def work(tx: Transaction) -> pb.ChangeTierResponse:
            changed = await change_license_tier(tx, actor=context.principal.key_id, wanted=wanted)
            return pb.ChangeTierResponse(license=render.license_(changed, tx.now))

        return await self._r.writer.run(context, request, pb.ChangeTierResponse, work)

    async def ChangePolicy(self, request: pb.ChangePolicyRequest, context: CallContext) -> pb.ChangePolicyResponse:
        fields.check(request)
        wanted = PolicyChange(request.license_id, request.policy_id, request.etag, request.reason)

        async def work(tx: Transaction) -> pb.ChangePolicyResponse:
            changed = await change_license_policy(tx, actor=context.principal.key_id, wanted=wanted)
            return pb.ChangePolicyResponse(license=render.license_(changed, tx.now))

        return await self._r.writer.run(context, request, pb.ChangePolicyResponse, work)

    async def TransferLicense(
        self, request: pb.TransferLicenseRequest, context: CallContext
    ) -> pb.TransferLicenseResponse:
        fields.check(request)
        customer = customer_name(request.customer) if request.HasField("customer") else None
        wanted = Transfer(request.license_id, customer, request.etag, request.reason)

        async def work(tx: Transaction) -> pb.TransferLicenseResponse:
            changed = await transfer_license(tx, actor=context.principal.key_id, wanted=wanted)
            return pb.TransferLicenseResponse(license=render.license_(changed, tx.now))

        return await self._r.writer.run(context, request, pb.TransferLicenseResponse, work)

    async def DeleteLicense(self, request: pb.DeleteLicenseRequest, context: CallContext) -> pb.DeleteLicenseResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.DeleteLicenseResponse:
            await delete_license(
                tx,
                actor=context.principal.key_id,
                license_id=request.license_id,
                etag=request.etag,
                reason=request.reason,
            )
            return pb.DeleteLicenseResponse()

        return await self._r.writer.run(context, request, pb.DeleteLicenseResponse, work)

    async def RotateLicenseKey(
        self, request: pb.RotateLicenseKeyRequest, context: CallContext
    ) -> pb.RotateLicenseKeyResponse:
        fields.check(request)
        overlap = to_timedelta(request, "overlap") or timedelta(0)
        wanted = KeyRotation(request.license_id, request.etag, request.reason, request.key or None, overlap)

        async def work(tx: Transaction) -> pb.RotateLicenseKeyResponse:
            await customer_access.refuse_rotation(tx, context.principal, request)
            done = await rotate_license_key(tx, self._r.keeper, actor=context.principal.key_id, wanted=wanted)
            return pb.RotateLicenseKeyResponse(
                license=customer_access.shown(context.principal, render.license_(done.license, tx.now)),
                key=done.key,
                old_keys_end_time=render.timestamp(done.old_keys_end_at),
            )

        return await self._r.writer.run(context, request, pb.RotateLicenseKeyResponse, work)

    async def RevealLicenseKey(
        self, request: pb.RevealLicenseKeyRequest, context: CallContext
    ) -> pb.RevealLicenseKeyResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.RevealLicenseKeyResponse:
            await customer_access.refuse_others_license(tx, context.principal, request.license_id)
            found, key = await reveal_license_key(
                tx,
                self._r.keeper,
                actor=context.principal.key_id,
                license_id=request.license_id,
                reason=request.reason,
            )
            license_ = customer_access.shown(context.principal, render.license_(found, tx.now))
            return pb.RevealLicenseKeyResponse(license=license_, key=key)

        return await self._r.writer.run(context, request, pb.RevealLicenseKeyResponse, work)

    async def ImportLicenses(
        self, request: pb.ImportLicensesRequest, context: CallContext
    ) -> pb.ImportLicensesResponse:
        return await serve_import(self._r, request, context)

    async def ListLicenseEvents(
        self, request: pb.ListLicenseEventsRequest, context: CallContext
    ) -> pb.ListLicenseEventsResponse:
        fields.check(request)
        wanted = event_store.EventFilter(
            request.license_id,
            tuple(sorted({event.name for name in request.types if (event := resolve(name)) is not None})),
            to_datetime(request, "start_time"),
            to_datetime(request, "end_time"),
        )
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"events|{wanted}",
            read=lambda tx, after, limit: queries.events_of_a_license(tx, wanted, after, limit),
            id_of=lambda found: str(found.subject_seq),
            rendered=lambda found, _: render.event(found, context.principal.tenant),
        )
        return pb.ListLicenseEventsResponse(events=page.items, next_page_token=page.next_token)

    async def _change(self, context: CallContext, request: Any, action: Action, response: type[R]) -> R:
        fields.check(request)
        expires_at = to_datetime(request, "expire_time") if action is Action.REINSTATE else None
        wanted = StatusChange(action, request.license_id, request.etag, request.reason, expires_at)

        async def work(tx: Transaction) -> R:
            changed = await change_license_status(tx, actor=context.principal.key_id, wanted=wanted)
            return cast("Any", response)(license=render.license_(changed, tx.now))

        return await self._r.writer.run(context, request, response, work)


def _value(request: pb.UpdateLicenseRequest, field: str) -> tuple[str, Any]:
    """The model's name of a field, and its value."""
    value: Any
    match field:
        case "start_time" | "expire_time":
            return field.replace("_time", "s_at"), to_datetime(request, field)
        case "overrides":
            value = overrides_of(request.overrides)
        case "external_id":
            value = request.external_id or None
        case "labels":
            value = dict(request.labels)
        case "metadata":
            value = MessageToDict(request.metadata)
        case _:
            value = getattr(request, field)
    return field, value
