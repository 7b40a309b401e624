"""The calls of CatalogService: products and policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Unpack

from lictor.license.v1 import catalog_service_pb2 as pb

from .convert import UNSET, JsonValue, Unset, enum_value, fresh, given, mask, struct
from .policy_terms import PolicyTerms, set_terms
from .prepared import Listing, Prepared, page, read, write

_SERVICE: Final = "/lictor.license.v1.CatalogService/"
Labels = Mapping[str, str]
Metadata = Mapping[str, JsonValue]


def create_product(
    *,
    code: str,
    display_name: str,
    slug: str = "",
    url: str = "",
    key_storage: str | pb.KeyStorage.Kind.ValueType | None = None,
    external_id: str = "",
    labels: Labels | None = None,
    metadata: Metadata | None = None,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.CreateProductResponse]:
    """Creates a product; `code` becomes the prefix of its license keys and cannot change.

    Its license keys can be shown again (`licenses.reveal_key`), unless `key_storage="HASH_ONLY"`.
    """
    request = pb.CreateProductRequest(
        request_id=fresh(request_id),
        code=code,
        external_id=external_id,
        slug=slug,
        display_name=display_name,
        url=url,
        labels=labels,
        metadata=struct(metadata),
        key_storage=enum_value(pb.KeyStorage.Kind, key_storage),
    )
    return write(_SERVICE + "CreateProduct", request, pb.CreateProductResponse, timeout_s)


def get_product(product_id: str = "", *, external_id: str = "", timeout_s: float | None = None) -> Prepared[pb.Product]:
    """Reads a product by its id or external id."""
    request = pb.GetProductRequest(product_id=product_id, external_id=external_id)
    return read(_SERVICE + "GetProduct", request, pb.GetProductResponse, lambda answer: answer.product, timeout_s)


def list_products(
    *, page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[pb.ListProductsResponse, pb.Product]:
    """Lists products, oldest first."""

    def ask(token: str) -> Prepared[pb.ListProductsResponse]:
        request = pb.ListProductsRequest(page_size=page_size, page_token=token)
        return page(_SERVICE + "ListProducts", request, pb.ListProductsResponse, timeout_s)

    return Listing(ask, lambda answer: answer.products, page_token)


def update_product(
    product_id: str,
    *,
    external_id: str | Unset | None = UNSET,
    slug: str | Unset = UNSET,
    display_name: str | Unset = UNSET,
    url: str | Unset | None = UNSET,
    labels: Labels | Unset | None = UNSET,
    metadata: Metadata | Unset | None = UNSET,
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.UpdateProductResponse]:
    """Changes the fields that are given; `None` clears one. With `etag`, only if nobody else changed it."""
    request = pb.UpdateProductRequest(
        request_id=fresh(request_id),
        product_id=product_id,
        update_mask=mask(
            external_id=external_id, slug=slug, display_name=display_name, url=url, labels=labels, metadata=metadata
        ),
        etag=etag,
        external_id=given(external_id, None) or "",
        slug=given(slug, ""),
        display_name=given(display_name, ""),
        url=given(url, None) or "",
        labels=given(labels, None),
        metadata=struct(given(metadata, None)),
    )
    return write(_SERVICE + "UpdateProduct", request, pb.UpdateProductResponse, timeout_s)


def delete_product(
    product_id: str,
    *,
    etag: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.DeleteProductResponse]:
    """Deletes a product that no policy uses."""
    request = pb.DeleteProductRequest(request_id=fresh(request_id), product_id=product_id, etag=etag, reason=reason)
    return write(_SERVICE + "DeleteProduct", request, pb.DeleteProductResponse, timeout_s)


def create_policy(
    *,
    product_id: str,
    display_name: str,
    template: str | pb.PolicyTemplate.Kind.ValueType | None = None,
    perpetual: bool = False,
    allow_unlimited: bool = False,
    external_id: str = "",
    labels: Labels | None = None,
    metadata: Metadata | None = None,
    request_id: str | None = None,
    timeout_s: float | None = None,
    **terms: Unpack[PolicyTerms],
) -> Prepared[pb.CreatePolicyResponse]:
    """Creates a policy. A term that is not given, or None, comes from `template`: desktop_app, cli_tool, saas, trial or
    custom."""
    request = pb.CreatePolicyRequest(
        request_id=fresh(request_id),
        product_id=product_id,
        template=enum_value(pb.PolicyTemplate.Kind, template),
        external_id=external_id,
        display_name=display_name,
        allow_unlimited=allow_unlimited,
        labels=labels,
        metadata=struct(metadata),
        perpetual=perpetual,
    )
    set_terms(request, terms)
    return write(_SERVICE + "CreatePolicy", request, pb.CreatePolicyResponse, timeout_s)


def get_policy(policy_id: str = "", *, external_id: str = "", timeout_s: float | None = None) -> Prepared[pb.Policy]:
    """Reads a policy by its id or external id."""
    request = pb.GetPolicyRequest(policy_id=policy_id, external_id=external_id)
    return read(_SERVICE + "GetPolicy", request, pb.GetPolicyResponse, lambda answer: answer.policy, timeout_s)


def list_policies(
    *, product_id: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[pb.ListPoliciesResponse, pb.Policy]:
    """Lists policies, oldest first; of one product where `product_id` is given."""

    def ask(token: str) -> Prepared[pb.ListPoliciesResponse]:
        request = pb.ListPoliciesRequest(page_size=page_size, page_token=token, product_id=product_id)
        return page(_SERVICE + "ListPolicies", request, pb.ListPoliciesResponse, timeout_s)

    return Listing(ask, lambda answer: answer.policies, page_token)


def update_policy(
    policy_id: str,
    *,
    external_id: str | Unset | None = UNSET,
    display_name: str | Unset = UNSET,
    allow_unlimited: bool = False,
    labels: Labels | Unset | None = UNSET,
    metadata: Metadata | Unset | None = UNSET,
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
    **terms: Unpack[PolicyTerms],
) -> Prepared[pb.UpdatePolicyResponse]:
    """Changes what is given; every license under the policy follows at once. `expiration_basis` cannot change.

    `None` clears a field: `duration=None` is perpetual; `max_machines=None` is unlimited, with `allow_unlimited=True`.
    """
    if "expiration_basis" in terms:
        raise ValueError("the expiration_basis of a policy can't change: licenses count by it already")
    request = pb.UpdatePolicyRequest(
        request_id=fresh(request_id),
        policy_id=policy_id,
        update_mask=mask(external_id=external_id, display_name=display_name, labels=labels, metadata=metadata, **terms),
        etag=etag,
        external_id=given(external_id, None) or "",
        display_name=given(display_name, ""),
        allow_unlimited=allow_unlimited,
        labels=given(labels, None),
        metadata=struct(given(metadata, None)),
    )
    set_terms(request, terms)
    return write(_SERVICE + "UpdatePolicy", request, pb.UpdatePolicyResponse, timeout_s)


def delete_policy(
    policy_id: str,
    *,
    etag: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.DeletePolicyResponse]:
    """Deletes a policy that no license uses."""
    request = pb.DeletePolicyRequest(request_id=fresh(request_id), policy_id=policy_id, etag=etag, reason=reason)
    return write(_SERVICE + "DeletePolicy", request, pb.DeletePolicyResponse, timeout_s)
