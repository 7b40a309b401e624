"""The calls of CatalogService that are about tiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lictor.license.v1 import catalog_service_pb2 as pb

from .convert import UNSET, JsonValue, Unset, fresh, given, mask, struct
from .prepared import Listing, Prepared, page, read, write

_SERVICE: Final = "/lictor.license.v1.CatalogService/"
Labels = Mapping[str, str]
Metadata = Mapping[str, JsonValue]


def create_tier(
    *,
    product_id: str,
    slug: str,
    display_name: str,
    position: int = 0,
    external_id: str = "",
    labels: Labels | None = None,
    metadata: Metadata | None = None,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.CreateTierResponse]:
    """Creates a tier of a product; one with a greater `position` is higher, and meets what asks for a lower one."""
    request = pb.CreateTierRequest(
        request_id=fresh(request_id),
        product_id=product_id,
        slug=slug,
        external_id=external_id,
        display_name=display_name,
        position=position,
        labels=labels,
        metadata=struct(metadata),
    )
    return write(_SERVICE + "CreateTier", request, pb.CreateTierResponse, timeout_s)


def get_tier(tier_id: str = "", *, external_id: str = "", timeout_s: float | None = None) -> Prepared[pb.Tier]:
    """Reads a tier by its id or external id."""
    request = pb.GetTierRequest(tier_id=tier_id, external_id=external_id)
    return read(_SERVICE + "GetTier", request, pb.GetTierResponse, lambda answer: answer.tier, timeout_s)


def list_tiers(
    *, product_id: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[pb.ListTiersResponse, pb.Tier]:
    """Lists tiers, oldest first; of one product where `product_id` is given."""

    def ask(token: str) -> Prepared[pb.ListTiersResponse]:
        request = pb.ListTiersRequest(page_size=page_size, page_token=token, product_id=product_id)
        return page(_SERVICE + "ListTiers", request, pb.ListTiersResponse, timeout_s)

    return Listing(ask, lambda answer: answer.tiers, page_token)


def update_tier(
    tier_id: str,
    *,
    external_id: str | Unset | None = UNSET,
    slug: str | Unset = UNSET,
    display_name: str | Unset = UNSET,
    position: int | Unset = UNSET,
    labels: Labels | Unset | None = UNSET,
    metadata: Metadata | Unset | None = UNSET,
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.UpdateTierResponse]:
    """Changes the fields that are given, for every license that has the tier; `None` clears one."""
    request = pb.UpdateTierRequest(
        request_id=fresh(request_id),
        tier_id=tier_id,
        update_mask=mask(
            external_id=external_id,
            slug=slug,
            display_name=display_name,
            position=position,
            labels=labels,
            metadata=metadata,
        ),
        etag=etag,
        external_id=given(external_id, None) or "",
        slug=given(slug, ""),
        display_name=given(display_name, ""),
        position=given(position, None),
        labels=given(labels, None),
        metadata=struct(given(metadata, None)),
    )
    return write(_SERVICE + "UpdateTier", request, pb.UpdateTierResponse, timeout_s)


def delete_tier(
    tier_id: str,
    *,
    etag: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.DeleteTierResponse]:
    """Deletes a tier that no license has."""
    request = pb.DeleteTierRequest(request_id=fresh(request_id), tier_id=tier_id, etag=etag, reason=reason)
    return write(_SERVICE + "DeleteTier", request, pb.DeleteTierResponse, timeout_s)
