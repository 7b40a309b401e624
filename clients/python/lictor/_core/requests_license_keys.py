"""The calls of LicenseService about the keys of licenses."""

from __future__ import annotations

from datetime import timedelta

from lictor.license.v1 import license_service_pb2 as pb

from .convert import duration, fresh
from .prepared import Prepared, write
from .requests_licenses import SERVICE


def reveal_license_key(
    license_id: str, *, reason: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.RevealLicenseKeyResponse]:
    """Shows a license's key again (`key` in the answer); an event says who asked, and why."""
    request = pb.RevealLicenseKeyRequest(request_id=fresh(request_id), license_id=license_id, reason=reason)
    return write(SERVICE + "RevealLicenseKey", request, pb.RevealLicenseKeyResponse, timeout_s)


def rotate_license_key(
    license_id: str,
    *,
    key: str = "",
    overlap: timedelta | None = None,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.RotateLicenseKeyResponse]:
    """Gives a license a new key (`key` in the answer); those before it work on for `overlap`, or end at once."""
    request = pb.RotateLicenseKeyRequest(
        request_id=fresh(request_id),
        license_id=license_id,
        etag=etag,
        reason=reason,
        key=key,
        overlap=duration(overlap),
    )
    return write(SERVICE + "RotateLicenseKey", request, pb.RotateLicenseKeyResponse, timeout_s)
