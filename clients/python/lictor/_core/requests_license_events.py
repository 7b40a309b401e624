"""The call of LicenseService that tells what has happened."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lictor.common.v1.event_pb2 import Event
from lictor.license.v1 import license_service_pb2 as pb

from .convert import several, timestamp
from .prepared import Listing, Prepared, page
from .requests_licenses import SERVICE


def list_license_events(
    license_id: str,
    *,
    types: Iterable[str] = (),
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    page_size: int = 0,
    page_token: str = "",
    timeout_s: float | None = None,
) -> Listing[pb.ListLicenseEventsResponse, Event]:
    """Lists what happened to a license, oldest first, also to one that was deleted; `types=["license.suspended"]` narrows."""
    wanted = list(several(types))

    def ask(token: str) -> Prepared[pb.ListLicenseEventsResponse]:
        request = pb.ListLicenseEventsRequest(
            license_id=license_id,
            page_size=page_size,
            page_token=token,
            types=wanted,
            start_time=timestamp(start_time),
            end_time=timestamp(end_time),
        )
        return page(SERVICE + "ListLicenseEvents", request, pb.ListLicenseEventsResponse, timeout_s)

    return Listing(ask, lambda answer: answer.events, page_token)
