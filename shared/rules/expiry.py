"""When licenses end: their expiry, which may wait for a first activation, and their grace period. All in UTC, and pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The last second of the calendar is left out: the driver takes a datetime's last instant for infinity."""
FROM_FIRST_ACTIVATION: Final = "FROM_FIRST_ACTIVATION"
"""The basis of an expiry that nobody stores: it follows from when the license's first machine was activated."""


def later(start: datetime, duration: timedelta) -> datetime | None:
    """In UTC, since a datetime of another zone adds by its wall clock; None past the year 9999."""
    utc = start.astimezone(UTC)
    return None if utc >= END - duration else utc + duration


def effective_expiry(
    *,
    expires_at: datetime | None,
    anchored: bool,
    expiration_basis: str,
    first_activated_at: datetime | None,
    starts_at: datetime | None,
    first_duration: timedelta | None,
) -> datetime | None:
    """When a license expires; None for never, and for one whose duration does not count yet.

    Args:
        expires_at: As it is stored.
        anchored: Whether that is all there is to say: an expiry was given, or the duration counts already.
        expiration_basis: The policy's.
        first_activated_at: When the license's first machine was activated, if ever.
        starts_at: Before which nothing counts.
        first_duration: How long a license of the policy lasts at first.
    """
    if anchored or expiration_basis != FROM_FIRST_ACTIVATION or first_activated_at is None or first_duration is None:
        return expires_at
    # In UTC, since datetimes of one other zone compare by its wall clock.
    start = max(at.astimezone(UTC) for at in (first_activated_at, starts_at) if at is not None)
    return later(start, first_duration) or END


def grace_end(expires_at: datetime | None, grace_period: timedelta) -> datetime | None:
    """The end of the grace period; None where there is none, or no expiry. It never passes the year 9999."""
    if expires_at is None or not grace_period:
        return None
    return later(expires_at, grace_period) or END


def ended(expires_at: datetime | None, grace_period: timedelta, now: datetime) -> bool:
    """Whether the expiry and the grace period are over; they are in their very last instant."""
    end = grace_end(expires_at, grace_period) or expires_at
    return end is not None and now.astimezone(UTC) >= end.astimezone(UTC)
