"""CatalogService: protobuf to model and back, nothing else."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from lictor.license.v1 import catalog_service_pb2 as pb

from services.license import catalog_store, fields, queries, render
from services.license.catalog_model import TEMPLATES, KeyStorage, Policy, Product, Template, refuse_unconfirmed
from services.license.commands.create_policy import create_policy
from services.license.commands.create_product import create_product
from services.license.commands.delete_policy import delete_policy
from services.license.commands.delete_product import delete_product
from services.license.commands.update_policy import update_policy
from services.license.commands.update_product import update_product
from services.license.tier_servicer import TierMethods
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix, new_id
from shared.rpc.context import CallContext
from shared.rpc.fields import masked, to_timedelta

_FLAGS: Final = frozenset({"is_trial", "floating", "require_fingerprint", "require_heartbeat", "offline_allowed"})
_GENERAL: Final = TEMPLATES[Template.CUSTOM]


class CatalogServicer(TierMethods):
    """Products, tiers and policies."""

    async def CreateProduct(self, request: pb.CreateProductRequest, context: CallContext) -> pb.CreateProductResponse:
        fields.check(request)
        storage = KeyStorage(pb.KeyStorage.Kind.Name(request.key_storage)) if request.key_storage else KeyStorage.SEALED

        async def work(tx: Transaction) -> pb.CreateProductResponse:
            self._r.keeper.refuse_unless_possible(storage)
            product = Product(
                new_id(Prefix.PRODUCT),
                request.external_id or None,
                request.code,
                request.slug or request.code.lower(),
                request.display_name,
                request.url,
                storage,
                dict(request.labels),
                MessageToDict(request.metadata),
                1,
                tx.now,
                tx.now,
            )
            made = await create_product(tx, actor=context.principal.key_id, product=product)
            return pb.CreateProductResponse(product=render.product(made))

        return await self._r.writer.run(context, request, pb.CreateProductResponse, work)

    async def GetProduct(self, request: pb.GetProductRequest, context: CallContext) -> pb.GetProductResponse:
        fields.check(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if request.product_id:
                found = await catalog_store.get_product(tx, request.product_id)
            else:
                found = await catalog_store.get_product_by_external_id(tx, request.external_id)
        if found is None:
            raise not_found(Reason.PRODUCT_NOT_FOUND, request.product_id or request.external_id)
        return pb.GetProductResponse(product=render.product(found))

    async def ListProducts(self, request: pb.ListProductsRequest, context: CallContext) -> pb.ListProductsResponse:
        fields.check(request)
        page = await queries.page_of(
            self._r,
            context,
            request,
            "products",
            read=catalog_store.page_of_products,
            id_of=lambda found: found.product_id,
        )
        products = [render.product(found) for found in page.items]
        return pb.ListProductsResponse(products=products, next_page_token=page.next_token)

    async def UpdateProduct(self, request: pb.UpdateProductRequest, context: CallContext) -> pb.UpdateProductResponse:
        fields.check(request)
        changes = _changes(request, fields.PRODUCT_FIELDS)

        async def work(tx: Transaction) -> pb.UpdateProductResponse:
            changed = await update_product(
                tx, actor=context.principal.key_id, product_id=request.product_id, etag=request.etag, changes=changes
            )
            return pb.UpdateProductResponse(product=render.product(changed))

        return await self._r.writer.run(context, request, pb.UpdateProductResponse, work)

    async def DeleteProduct(self, request: pb.DeleteProductRequest, context: CallContext) -> pb.DeleteProductResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.DeleteProductResponse:
            await delete_product(
                tx,
                actor=context.principal.key_id,
                product_id=request.product_id,
                etag=request.etag,
                reason=request.reason,
            )
            return pb.DeleteProductResponse()

        return await self._r.writer.run(context, request, pb.DeleteProductResponse, work)

    async def CreatePolicy(self, request: pb.CreatePolicyRequest, context: CallContext) -> pb.CreatePolicyResponse:
        fields.check(request)
        template, max_machines = _template(request), _max_machines(request)

        async def work(tx: Transaction) -> pb.CreatePolicyResponse:
            policy = _new_policy(request, template, max_machines, tx)
            made = await create_policy(tx, actor=context.principal.key_id, policy=policy)
            return pb.CreatePolicyResponse(policy=render.policy(made))

        return await self._r.writer.run(context, request, pb.CreatePolicyResponse, work)

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: CallContext) -> pb.GetPolicyResponse:
        fields.check(request)
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if request.policy_id:
                found = await catalog_store.get_policy(tx, request.policy_id)
            else:
                found = await catalog_store.get_policy_by_external_id(tx, request.external_id)
        if found is None:
            raise not_found(Reason.POLICY_NOT_FOUND, request.policy_id or request.external_id)
        return pb.GetPolicyResponse(policy=render.policy(found))

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: CallContext) -> pb.ListPoliciesResponse:
        fields.check(request)
        page = await queries.page_of(
            self._r,
            context,
            request,
            f"policies|{request.product_id}",
            read=lambda tx, after, limit: catalog_store.page_of_policies(tx, after, limit, request.product_id),
            id_of=lambda found: found.policy_id,
        )
        policies = [render.policy(found) for found in page.items]
        return pb.ListPoliciesResponse(policies=policies, next_page_token=page.next_token)

    async def UpdatePolicy(self, request: pb.UpdatePolicyRequest, context: CallContext) -> pb.UpdatePolicyResponse:
        fields.check(request)
        changes = _changes(request, fields.POLICY_FIELDS)

        async def work(tx: Transaction) -> pb.UpdatePolicyResponse:
            changed = await update_policy(
                tx,
                actor=context.principal.key_id,
                policy_id=request.policy_id,
                etag=request.etag,
                changes=changes,
                unlimited_confirmed=request.allow_unlimited,
            )
            return pb.UpdatePolicyResponse(policy=render.policy(changed))

        return await self._r.writer.run(context, request, pb.UpdatePolicyResponse, work)

    async def DeletePolicy(self, request: pb.DeletePolicyRequest, context: CallContext) -> pb.DeletePolicyResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.DeletePolicyResponse:
            await delete_policy(
                tx,
                actor=context.principal.key_id,
                policy_id=request.policy_id,
                etag=request.etag,
                reason=request.reason,
            )
            return pb.DeletePolicyResponse()

        return await self._r.writer.run(context, request, pb.DeletePolicyResponse, work)


def _changes(request: Any, allowed: tuple[str, ...]) -> dict[str, Any]:
    """The masked fields with their values; an optional field that is absent is None or its general default."""
    return {field: _value(request, field) for field in masked(request, allowed)}


def _value(request: Any, field: str) -> Any:
    match field:
        case "duration":
            value = to_timedelta(request, field)
        case "heartbeat_interval" | "offline_max_ttl":
            value = to_timedelta(request, field) or getattr(_GENERAL, field)
        case "external_id":
            value = request.external_id or None
        case "metadata":
            value = MessageToDict(request.metadata)
        case "labels":
            value = dict(request.labels)
        case "max_machines":
            value = request.max_machines if request.HasField(field) else None
        case _ if field in _FLAGS:
            value = getattr(request if request.HasField(field) else _GENERAL, field)
        case _:
            value = getattr(request, field)
    return value


def _template(request: pb.CreatePolicyRequest) -> Template:
    if not request.template:
        return Template.CUSTOM
    return Template(pb.PolicyTemplate.Kind.Name(request.template))


def _max_machines(request: pb.CreatePolicyRequest) -> int | None:
    if request.HasField("max_machines"):
        return request.max_machines
    terms = TEMPLATES[_template(request)]
    chosen = None if request.allow_unlimited else terms.max_machines
    refuse_unconfirmed(chosen, confirmed=request.allow_unlimited or terms.unlimited)
    return chosen


def _new_policy(
    request: pb.CreatePolicyRequest, template: Template, max_machines: int | None, tx: Transaction
) -> Policy:
    terms = TEMPLATES[template]

    def flag(field: str) -> bool:
        given = request.ListFields()
        named = {descriptor.name: value for descriptor, value in given}
        return bool(named.get(field, getattr(terms, field)))

    return Policy(
        policy_id=new_id(Prefix.POLICY),
        external_id=request.external_id or None,
        product_id=request.product_id,
        display_name=request.display_name,
        template=template,
        duration=None if request.perpetual else to_timedelta(request, "duration") or terms.duration,
        is_trial=flag("is_trial"),
        max_machines=max_machines,
        floating=flag("floating"),
        require_fingerprint=flag("require_fingerprint"),
        require_heartbeat=flag("require_heartbeat"),
        heartbeat_interval=to_timedelta(request, "heartbeat_interval") or terms.heartbeat_interval,
        offline_allowed=flag("offline_allowed"),
        offline_max_ttl=to_timedelta(request, "offline_max_ttl") or terms.offline_max_ttl,
        labels=dict(request.labels),
        metadata=MessageToDict(request.metadata),
        revision=1,
        created_at=tx.now,
        updated_at=tx.now,
    )
