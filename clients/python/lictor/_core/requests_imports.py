"""The call of LicenseService that takes licenses in from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from lictor.license.v1 import license_service_pb2 as pb

from .convert import fresh
from .prepared import Prepared, write
from .requests_licenses import SERVICE


def import_licenses(
    items: Iterable[pb.LicenseImport],
    *,
    validate_only: bool = False,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.ImportLicensesResponse]:
    """Takes in up to 1,000 licenses from elsewhere, all or none; `validate_only` says what is bad, and stores nothing."""
    request = pb.ImportLicensesRequest(request_id=fresh(request_id), items=items, validate_only=validate_only)
    return write(SERVICE + "ImportLicenses", request, pb.ImportLicensesResponse, timeout_s)
