"""The calls of CustomerService."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from lictor.license.v1 import customer_service_pb2 as pb

from .convert import UNSET, JsonValue, Unset, duration, fresh, given, mask, struct
from .prepared import Listing, Prepared, page, read, write

_SERVICE: Final = "/lictor.license.v1.CustomerService/"
Labels = Mapping[str, str]
Metadata = Mapping[str, JsonValue]


def get_customer(
    customer_id: str = "", *, email: str = "", subject_ref: str = "", timeout_s: float | None = None
) -> Prepared[pb.Customer]:
    """Reads a customer by its id, its email or your own name of it."""
    request = pb.GetCustomerRequest(customer_id=customer_id, email=email, subject_ref=subject_ref)
    return read(_SERVICE + "GetCustomer", request, pb.GetCustomerResponse, lambda answer: answer.customer, timeout_s)


def list_customers(
    *,
    email: str = "",
    subject_ref: str = "",
    banned: bool | None = None,
    page_size: int = 0,
    page_token: str = "",
    timeout_s: float | None = None,
) -> Listing[pb.ListCustomersResponse, pb.Customer]:
    """Lists customers, oldest first; each filter that is given narrows the list."""

    def ask(token: str) -> Prepared[pb.ListCustomersResponse]:
        request = pb.ListCustomersRequest(
            page_size=page_size, page_token=token, email=email, subject_ref=subject_ref, banned=banned
        )
        return page(_SERVICE + "ListCustomers", request, pb.ListCustomersResponse, timeout_s)

    return Listing(ask, lambda answer: answer.customers, page_token)


def update_customer(
    customer_id: str,
    *,
    email: str | Unset | None = UNSET,
    subject_ref: str | Unset | None = UNSET,
    display_name: str | Unset | None = UNSET,
    labels: Labels | Unset | None = UNSET,
    metadata: Metadata | Unset | None = UNSET,
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.UpdateCustomerResponse]:
    """Changes the fields that are given; `None` clears one, but email and subject_ref not both."""
    request = pb.UpdateCustomerRequest(
        request_id=fresh(request_id),
        customer_id=customer_id,
        update_mask=mask(
            email=email, subject_ref=subject_ref, display_name=display_name, labels=labels, metadata=metadata
        ),
        etag=etag,
        email=given(email, None) or "",
        subject_ref=given(subject_ref, None) or "",
        display_name=given(display_name, None) or "",
        labels=given(labels, None),
        metadata=struct(given(metadata, None)),
    )
    return write(_SERVICE + "UpdateCustomer", request, pb.UpdateCustomerResponse, timeout_s)


def ban_customer(
    customer_id: str,
    *,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.BanCustomerResponse]:
    """Bans a customer; when this returns, no validation that starts later says VALID for any of its licenses."""
    request = pb.BanCustomerRequest(request_id=fresh(request_id), customer_id=customer_id, etag=etag, reason=reason)
    return write(_SERVICE + "BanCustomer", request, pb.BanCustomerResponse, timeout_s)


def unban_customer(
    customer_id: str,
    *,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.UnbanCustomerResponse]:
    """Ends a customer's ban; its licenses are what they were."""
    request = pb.UnbanCustomerRequest(request_id=fresh(request_id), customer_id=customer_id, etag=etag, reason=reason)
    return write(_SERVICE + "UnbanCustomer", request, pb.UnbanCustomerResponse, timeout_s)


def create_customer_session(
    customer_id: str,
    *,
    ttl: timedelta | None = None,
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.CreateCustomerSessionResponse]:
    """Makes a token for a customer, good for `ttl` (15 minutes by default). The answer's `token` is shown this once.

    `Lictor(api_key=token)` sees that customer and its licenses alone.
    """
    request = pb.CreateCustomerSessionRequest(
        request_id=fresh(request_id), customer_id=customer_id, ttl=duration(ttl), reason=reason
    )
    return write(_SERVICE + "CreateCustomerSession", request, pb.CreateCustomerSessionResponse, timeout_s)


def revoke_customer_sessions(
    customer_id: str, *, reason: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.RevokeCustomerSessionsResponse]:
    """Ends all sessions of a customer; when this returns, no call that starts later is let in by one of them."""
    request = pb.RevokeCustomerSessionsRequest(request_id=fresh(request_id), customer_id=customer_id, reason=reason)
    return write(_SERVICE + "RevokeCustomerSessions", request, pb.RevokeCustomerSessionsResponse, timeout_s)
