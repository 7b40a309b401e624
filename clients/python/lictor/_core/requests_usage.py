"""The calls of LicenseService that are about check-ins and uses."""

from __future__ import annotations

from typing import Final

from lictor.license.v1 import license_service_pb2 as pb

from .convert import fresh
from .prepared import Prepared, write

_SERVICE: Final = "/lictor.license.v1.LicenseService/"


def check_in_license(
    license_id: str, *, reason: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.CheckInLicenseResponse]:
    """Notes that a license is in use, as a policy with `require_check_in` asks."""
    request = pb.CheckInLicenseRequest(request_id=fresh(request_id), license_id=license_id, reason=reason)
    return write(_SERVICE + "CheckInLicense", request, pb.CheckInLicenseResponse, timeout_s)


def increment_uses(
    license_id: str,
    uses: int = 1,
    *,
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.IncrementUsesResponse]:
    """Counts uses: all of them, or none where fewer are left."""
    request = pb.IncrementUsesRequest(request_id=fresh(request_id), license_id=license_id, uses=uses, reason=reason)
    return write(_SERVICE + "IncrementUses", request, pb.IncrementUsesResponse, timeout_s)


def decrement_uses(
    license_id: str,
    uses: int = 1,
    *,
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.DecrementUsesResponse]:
    """Gives uses back, at most as many as were counted."""
    request = pb.DecrementUsesRequest(request_id=fresh(request_id), license_id=license_id, uses=uses, reason=reason)
    return write(_SERVICE + "DecrementUses", request, pb.DecrementUsesResponse, timeout_s)


def reset_uses(
    license_id: str, *, reason: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.ResetUsesResponse]:
    """Counts uses from 0 again."""
    request = pb.ResetUsesRequest(request_id=fresh(request_id), license_id=license_id, reason=reason)
    return write(_SERVICE + "ResetUses", request, pb.ResetUsesResponse, timeout_s)
