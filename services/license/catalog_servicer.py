"""CatalogService: protobuf to model and back, nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.protobuf.json_format import MessageToDict
from lictor.license.v1 import catalog_service_pb2 as pb

from services.license import catalog_store, fields, policy_terms, render
from services.license.catalog_model import KeyStorage, Policy, Product
from services.license.commands.create_policy import create_policy
from services.license.commands.create_product import create_product
from services.license.commands.delete_policy import delete_policy
from services.license.commands.delete_product import delete_product
from services.license.commands.update_policy import PolicyChanges, update_policy
from services.license.commands.update_product import update_product
from services.license.terms import TEMPLATES, UNLIMITED, Template, Terms, check_in_since, refuse_unconfirmed
from services.license.tier_servicer import TierMethods
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix, new_id
from shared.rpc.context import CallContext
from shared.rpc.fields import masked
from shared.rpc.pages import page_of


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
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            "products",
            read=catalog_store.page_of_products,
            id_of=lambda found: found.product_id,
            rendered=lambda found, _: render.product(found),
        )
        return pb.ListProductsResponse(products=page.items, next_page_token=page.next_token)

    async def UpdateProduct(self, request: pb.UpdateProductRequest, context: CallContext) -> pb.UpdateProductResponse:
        fields.check(request)
        changes = {field: _value(request, field) for field in masked(request, fields.PRODUCT_FIELDS)}

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
        template = Template(pb.PolicyTemplate.Kind.Name(request.template)) if request.template else Template.CUSTOM
        terms = _terms(request, template)

        async def work(tx: Transaction) -> pb.CreatePolicyResponse:
            policy = _new_policy(request, template, terms, tx)
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
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"policies|{request.product_id}",
            read=lambda tx, after, limit: catalog_store.page_of_policies(tx, after, limit, request.product_id),
            id_of=lambda found: found.policy_id,
            rendered=lambda found, _: render.policy(found),
        )
        return pb.ListPoliciesResponse(policies=page.items, next_page_token=page.next_token)

    async def UpdatePolicy(self, request: pb.UpdatePolicyRequest, context: CallContext) -> pb.UpdatePolicyResponse:
        fields.check(request)
        named = masked(request, fields.POLICY_FIELDS)
        changes = PolicyChanges(
            lambda before: policy_terms.changed(request, named & policy_terms.TERM_NAMES, before),
            {field: _value(request, field) for field in named - policy_terms.TERM_NAMES},
        )

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


def _value(request: Any, field: str) -> Any:
    match field:
        case "external_id":
            return request.external_id or None
        case "metadata":
            return MessageToDict(request.metadata)
        case "labels":
            return dict(request.labels)
        case _:
            return getattr(request, field)


def _terms(request: pb.CreatePolicyRequest, template: Template) -> Terms:
    """FIELD_INVALID, UNLIMITED_NOT_CONFIRMED."""
    terms = policy_terms.chosen(request, TEMPLATES[template])
    if request.perpetual:
        terms = replace(terms, duration=None)
    if request.allow_unlimited:
        terms = replace(terms, max_machines=None)
    refuse_unconfirmed(terms.max_machines, confirmed=request.allow_unlimited or template in UNLIMITED)
    return terms


def _new_policy(request: pb.CreatePolicyRequest, template: Template, terms: Terms, tx: Transaction) -> Policy:
    return Policy(
        policy_id=new_id(Prefix.POLICY),
        external_id=request.external_id or None,
        product_id=request.product_id,
        display_name=request.display_name,
        template=template,
        terms=terms,
        check_in_since=check_in_since(terms, None, None, tx.now),
        labels=dict(request.labels),
        metadata=MessageToDict(request.metadata),
        revision=1,
        created_at=tx.now,
        updated_at=tx.now,
    )
