"""The methods of CatalogService that are about tiers: protobuf to model and back, nothing else."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from lictor.license.v1 import catalog_service_pb2 as pb

from services.license import fields, render, tier_store
from services.license.catalog_model import Tier
from services.license.commands.create_tier import create_tier
from services.license.commands.delete_tier import delete_tier
from services.license.commands.update_tier import update_tier
from services.license.resources import Resources
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix, new_id
from shared.rpc.context import CallContext
from shared.rpc.fields import masked
from shared.rpc.pages import page_of


class TierMethods:
    """Tiers."""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def CreateTier(self, request: pb.CreateTierRequest, context: CallContext) -> pb.CreateTierResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.CreateTierResponse:
            tier = Tier(
                new_id(Prefix.TIER),
                request.external_id or None,
                request.product_id,
                request.slug,
                request.display_name,
                request.position,
                dict(request.labels),
                MessageToDict(request.metadata),
                1,
                tx.now,
                tx.now,
            )
            made = await create_tier(tx, actor=context.principal.key_id, tier=tier)
            return pb.CreateTierResponse(tier=render.tier(made))

        return await self._r.writer.run(context, request, pb.CreateTierResponse, work)

    async def GetTier(self, request: pb.GetTierRequest, context: CallContext) -> pb.GetTierResponse:
        fields.check(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if request.tier_id:
                found = await tier_store.get(tx, request.tier_id)
            else:
                found = await tier_store.get_by_external_id(tx, request.external_id)
        if found is None:
            raise not_found(Reason.TIER_NOT_FOUND, request.tier_id or request.external_id)
        return pb.GetTierResponse(tier=render.tier(found))

    async def ListTiers(self, request: pb.ListTiersRequest, context: CallContext) -> pb.ListTiersResponse:
        fields.check(request)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"tiers|{request.product_id}",
            read=lambda tx, after, limit: tier_store.page(tx, after, limit, request.product_id),
            id_of=lambda found: found.tier_id,
            rendered=lambda found, _: render.tier(found),
        )
        return pb.ListTiersResponse(tiers=page.items, next_page_token=page.next_token)

    async def UpdateTier(self, request: pb.UpdateTierRequest, context: CallContext) -> pb.UpdateTierResponse:
        fields.check(request)
        changes = {field: _value(request, field) for field in masked(request, fields.TIER_FIELDS)}

        async def work(tx: Transaction) -> pb.UpdateTierResponse:
            changed = await update_tier(
                tx, actor=context.principal.key_id, tier_id=request.tier_id, etag=request.etag, changes=changes
            )
            return pb.UpdateTierResponse(tier=render.tier(changed))

        return await self._r.writer.run(context, request, pb.UpdateTierResponse, work)

    async def DeleteTier(self, request: pb.DeleteTierRequest, context: CallContext) -> pb.DeleteTierResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.DeleteTierResponse:
            await delete_tier(
                tx, actor=context.principal.key_id, tier_id=request.tier_id, etag=request.etag, reason=request.reason
            )
            return pb.DeleteTierResponse()

        return await self._r.writer.run(context, request, pb.DeleteTierResponse, work)


def _value(request: pb.UpdateTierRequest, field: str) -> Any:
    match field:
        case "external_id":
            return request.external_id or None
        case "labels":
            return dict(request.labels)
        case "metadata":
            return MessageToDict(request.metadata)
        case _:
            return getattr(request, field)
