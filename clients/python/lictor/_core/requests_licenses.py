"""The calls of LicenseService."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from lictor.license.v1 import license_service_pb2 as pb

from .convert import UNSET, JsonValue, Unset, enum_value, fresh, given, mask, struct, timestamp
from .prepared import Listing, Prepared, page, read, write

SERVICE: Final = "/lictor.license.v1.LicenseService/"
Labels = Mapping[str, str]
Metadata = Mapping[str, JsonValue]


def _holder(customer_id: str, email: str, subject_ref: str, name: str) -> pb.CustomerRef | None:
    named = [value for value in (customer_id, email, subject_ref) if value]
    if len(named) > 1:
        raise ValueError("name the customer in one way: customer_id, customer_email or subject_ref")
    if not named:
        if name:
            raise ValueError("customer_name goes with customer_email or subject_ref")
        return None
    if customer_id:
        return pb.CustomerRef(customer_id=customer_id, display_name=name)
    if email:
        return pb.CustomerRef(email=email, display_name=name)
    return pb.CustomerRef(subject_ref=subject_ref, display_name=name)


def create_license(
    *,
    policy_id: str,
    product_id: str = "",
    tier_id: str = "",
    customer_id: str = "",
    customer_email: str = "",
    subject_ref: str = "",
    customer_name: str = "",
    key: str = "",
    start_time: datetime | None = None,
    expire_time: datetime | None = None,
    overrides: pb.LicenseOverrides | None = None,
    external_id: str = "",
    display_name: str = "",
    labels: Labels | None = None,
    metadata: Metadata | None = None,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.CreateLicenseResponse]:
    """Issues a license. The answer's `key` is the license key; a customer who does not exist yet is created.

    `overrides=LicenseOverrides(max_uses=10)` sets limits of its own, of those that the policy lists as overridable.
    """
    request = pb.CreateLicenseRequest(
        request_id=fresh(request_id),
        policy_id=policy_id,
        product_id=product_id,
        customer=_holder(customer_id, customer_email, subject_ref, customer_name),
        key=key,
        external_id=external_id,
        display_name=display_name,
        start_time=timestamp(start_time),
        expire_time=timestamp(expire_time),
        labels=labels,
        metadata=struct(metadata),
        tier_id=tier_id,
        overrides=overrides,
    )
    return write(SERVICE + "CreateLicense", request, pb.CreateLicenseResponse, timeout_s)


def get_license(license_id: str = "", *, external_id: str = "", timeout_s: float | None = None) -> Prepared[pb.License]:
    """Reads a license by its id or external id."""
    request = pb.GetLicenseRequest(license_id=license_id, external_id=external_id)
    return read(SERVICE + "GetLicense", request, pb.GetLicenseResponse, lambda answer: answer.license, timeout_s)


def list_licenses(
    *,
    product_id: str = "",
    policy_id: str = "",
    customer_id: str = "",
    customer_email: str = "",
    tier_id: str = "",
    status: str | pb.LicenseStatus.Status.ValueType | None = None,
    page_size: int = 0,
    page_token: str = "",
    timeout_s: float | None = None,
) -> Listing[pb.ListLicensesResponse, pb.License]:
    """Lists licenses, oldest first; each filter that is given narrows the list (`status="suspended"`)."""
    wanted = enum_value(pb.LicenseStatus.Status, status)

    def ask(token: str) -> Prepared[pb.ListLicensesResponse]:
        request = pb.ListLicensesRequest(
            page_size=page_size,
            page_token=token,
            product_id=product_id,
            policy_id=policy_id,
            customer_id=customer_id,
            customer_email=customer_email,
            status=wanted,
            tier_id=tier_id,
        )
        return page(SERVICE + "ListLicenses", request, pb.ListLicensesResponse, timeout_s)

    return Listing(ask, lambda answer: answer.licenses, page_token)


def update_license(
    license_id: str,
    *,
    external_id: str | Unset | None = UNSET,
    display_name: str | Unset | None = UNSET,
    start_time: datetime | Unset | None = UNSET,
    expire_time: datetime | Unset | None = UNSET,
    overrides: pb.LicenseOverrides | Unset | None = UNSET,
    labels: Labels | Unset | None = UNSET,
    metadata: Metadata | Unset | None = UNSET,
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.UpdateLicenseResponse]:
    """Changes the fields that are given; `None` clears one, so `expire_time=None` means that it never expires."""
    request = pb.UpdateLicenseRequest(
        request_id=fresh(request_id),
        license_id=license_id,
        update_mask=mask(
            external_id=external_id,
            display_name=display_name,
            start_time=start_time,
            expire_time=expire_time,
            overrides=overrides,
            labels=labels,
            metadata=metadata,
        ),
        etag=etag,
        external_id=given(external_id, None) or "",
        display_name=given(display_name, None) or "",
        start_time=timestamp(given(start_time, None)),
        expire_time=timestamp(given(expire_time, None)),
        overrides=given(overrides, None),
        labels=given(labels, None),
        metadata=struct(given(metadata, None)),
    )
    return write(SERVICE + "UpdateLicense", request, pb.UpdateLicenseResponse, timeout_s)


def suspend_license(
    license_id: str,
    *,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.SuspendLicenseResponse]:
    """Disables an active license for a while; when this returns, no validation that starts later says VALID."""
    request = pb.SuspendLicenseRequest(request_id=fresh(request_id), license_id=license_id, etag=etag, reason=reason)
    return write(SERVICE + "SuspendLicense", request, pb.SuspendLicenseResponse, timeout_s)


def reinstate_license(
    license_id: str,
    *,
    expire_time: datetime | None = None,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.ReinstateLicenseResponse]:
    """Lets a suspended license work again, or an expired one until the new `expire_time`."""
    request = pb.ReinstateLicenseRequest(
        request_id=fresh(request_id),
        license_id=license_id,
        etag=etag,
        reason=reason,
        expire_time=timestamp(expire_time),
    )
    return write(SERVICE + "ReinstateLicense", request, pb.ReinstateLicenseResponse, timeout_s)


def renew_license(
    license_id: str,
    *,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.RenewLicenseResponse]:
    """Extends a license by its policy's duration, from its expiry or from now as its policy says."""
    request = pb.RenewLicenseRequest(request_id=fresh(request_id), license_id=license_id, etag=etag, reason=reason)
    return write(SERVICE + "RenewLicense", request, pb.RenewLicenseResponse, timeout_s)


def revoke_license(
    license_id: str,
    *,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.RevokeLicenseResponse]:
    """Ends a license for good."""
    request = pb.RevokeLicenseRequest(request_id=fresh(request_id), license_id=license_id, etag=etag, reason=reason)
    return write(SERVICE + "RevokeLicense", request, pb.RevokeLicenseResponse, timeout_s)


def ban_license(
    license_id: str,
    *,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.BanLicenseResponse]:
    """Ends a license for good, for abuse."""
    request = pb.BanLicenseRequest(request_id=fresh(request_id), license_id=license_id, etag=etag, reason=reason)
    return write(SERVICE + "BanLicense", request, pb.BanLicenseResponse, timeout_s)


def change_tier(
    license_id: str,
    tier_id: str | None,
    *,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.ChangeTierResponse]:
    """Gives an active, suspended or expired license another tier of its product; `None` takes its tier away."""
    request = pb.ChangeTierRequest(
        request_id=fresh(request_id), license_id=license_id, tier_id=tier_id or "", etag=etag, reason=reason
    )
    return write(SERVICE + "ChangeTier", request, pb.ChangeTierResponse, timeout_s)


def change_policy(
    license_id: str,
    policy_id: str,
    *,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.ChangePolicyResponse]:
    """Puts a license under another policy of its product; its expiry follows the new policy's `transfer_strategy`."""
    request = pb.ChangePolicyRequest(
        request_id=fresh(request_id), license_id=license_id, policy_id=policy_id, etag=etag, reason=reason
    )
    return write(SERVICE + "ChangePolicy", request, pb.ChangePolicyResponse, timeout_s)


def transfer_license(
    license_id: str,
    *,
    customer_id: str = "",
    customer_email: str = "",
    subject_ref: str = "",
    customer_name: str = "",
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.TransferLicenseResponse]:
    """Gives a license to another customer, who is created where new; to nobody where none is named. Its key stays."""
    request = pb.TransferLicenseRequest(
        request_id=fresh(request_id),
        license_id=license_id,
        customer=_holder(customer_id, customer_email, subject_ref, customer_name),
        etag=etag,
        reason=reason,
    )
    return write(SERVICE + "TransferLicense", request, pb.TransferLicenseResponse, timeout_s)


def delete_license(
    license_id: str,
    *,
    etag: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.DeleteLicenseResponse]:
    """Deletes a license; its key is never free again."""
    request = pb.DeleteLicenseRequest(request_id=fresh(request_id), license_id=license_id, etag=etag, reason=reason)
    return write(SERVICE + "DeleteLicense", request, pb.DeleteLicenseResponse, timeout_s)
