"""The calls of AccountService on workload bindings, with an operator key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lictor.account.v1 import account_service_pb2 as pb
from lictor.common.v1.common_pb2 import Mode

from .convert import UNSET, Unset, enum_value, fresh, given, mask, several
from .prepared import Listing, Prepared, page, read, write

_SERVICE: Final = "/lictor.account.v1.AccountService/"


def create_workload_binding(
    *,
    spiffe_id_pattern: str,
    account_id: str,
    mode: str | Mode.Kind.ValueType,
    scopes: Iterable[str],
    display_name: str = "",
    external_id: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.CreateWorkloadBindingResponse]:
    """Lets callers whose certificates have a SPIFFE ID act in an account's `mode` ("TEST" or "LIVE"), without a key.

    The pattern is a SPIFFE ID, or one that ends in `/*`. Needs an operator key.
    """
    request = pb.CreateWorkloadBindingRequest(
        request_id=fresh(request_id),
        display_name=display_name,
        external_id=external_id,
        spiffe_id_pattern=spiffe_id_pattern,
        account_id=account_id,
        mode=enum_value(Mode.Kind, mode),
        scopes=several(scopes),
    )
    return write(_SERVICE + "CreateWorkloadBinding", request, pb.CreateWorkloadBindingResponse, timeout_s)


def get_workload_binding(
    workload_binding_id: str = "", *, external_id: str = "", timeout_s: float | None = None
) -> Prepared[pb.WorkloadBinding]:
    """Reads a workload binding by its id or external id. Needs an operator key."""
    request = pb.GetWorkloadBindingRequest(workload_binding_id=workload_binding_id, external_id=external_id)
    return read(
        _SERVICE + "GetWorkloadBinding",
        request,
        pb.GetWorkloadBindingResponse,
        lambda answer: answer.workload_binding,
        timeout_s,
    )


def list_workload_bindings(
    *, account_id: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[pb.ListWorkloadBindingsResponse, pb.WorkloadBinding]:
    """Lists workload bindings, oldest first; of one account where `account_id` is given. Needs an operator key."""

    def ask(token: str) -> Prepared[pb.ListWorkloadBindingsResponse]:
        request = pb.ListWorkloadBindingsRequest(page_size=page_size, page_token=token, account_id=account_id)
        return page(_SERVICE + "ListWorkloadBindings", request, pb.ListWorkloadBindingsResponse, timeout_s)

    return Listing(ask, lambda answer: answer.workload_bindings, page_token)


def update_workload_binding(
    workload_binding_id: str,
    *,
    display_name: str | Unset | None = UNSET,
    scopes: Iterable[str] | Unset = UNSET,
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.UpdateWorkloadBindingResponse]:
    """Changes the fields that are given; new scopes hold from the next call on. Needs an operator key."""
    request = pb.UpdateWorkloadBindingRequest(
        request_id=fresh(request_id),
        workload_binding_id=workload_binding_id,
        update_mask=mask(display_name=display_name, scopes=scopes),
        etag=etag,
        display_name=given(display_name, None) or "",
        scopes=several(given(scopes, ())),
    )
    return write(_SERVICE + "UpdateWorkloadBinding", request, pb.UpdateWorkloadBindingResponse, timeout_s)


def delete_workload_binding(
    workload_binding_id: str,
    *,
    etag: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.DeleteWorkloadBindingResponse]:
    """Deletes a workload binding: callers that came in through it are refused from the next call on."""
    request = pb.DeleteWorkloadBindingRequest(
        request_id=fresh(request_id), workload_binding_id=workload_binding_id, etag=etag, reason=reason
    )
    return write(_SERVICE + "DeleteWorkloadBinding", request, pb.DeleteWorkloadBindingResponse, timeout_s)
