"""When licenses begin, end and must check in: arithmetic on instants, all in UTC. Pure."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import assert_never

from services.license.terms import CheckInInterval, ExpirationBasis, RenewalBasis, Terms
from shared.errors import FieldViolation, fields_invalid
from shared.rules.expiry import END, ended, later


def after(start: datetime, duration: timedelta) -> datetime:
    """FIELD_INVALID past the year 9999."""
    end = later(start, duration)
    if end is None:
        raise fields_invalid(
            (FieldViolation("expire_time", "OUT_OF_RANGE", "the expiry would be after the year 9999"),)
        )
    return end


def starts_counting_at_once(terms: Terms) -> bool:
    """Whether a license's duration waits for nothing; that of a perpetual one has nothing to wait for."""
    return terms.first_duration is None or terms.expiration_basis is ExpirationBasis.FROM_CREATION


def first_expiry(terms: Terms, starts_at: datetime | None, now: datetime) -> datetime | None:
    """When a new license expires by its terms; None for never, or where its duration does not count yet."""
    duration = terms.first_duration
    if duration is None or not starts_counting_at_once(terms):
        return None
    return after(starts_at or now, duration)


def renewed(terms: Terms, expires_at: datetime, duration: timedelta, now: datetime) -> datetime:
    """When a license expires after its renewal."""
    match terms.renewal_basis:
        case RenewalBasis.FROM_EXPIRY:
            return after(expires_at, duration)
        case RenewalBasis.FROM_NOW:
            return after(now, duration)
        case RenewalBasis.FROM_NOW_IF_EXPIRED:
            has_expired = ended(expires_at, terms.grace_period, now)
            return after(now if has_expired else expires_at, duration)
        case _:
            assert_never(terms.renewal_basis)


def check_in_due(
    interval: CheckInInterval,
    count: int,
    check_in_from: datetime,
    since: datetime | None,
    starts_at: datetime | None = None,
) -> datetime | None:
    """When a license must have checked in; None past the year 9999. `since` is when its policy began to require it.

    A license that has not started owes none.
    """
    start = max(at.astimezone(UTC) for at in (check_in_from, since, starts_at) if at is not None)
    match interval:
        case CheckInInterval.DAY:
            return later(start, timedelta(days=count))
        case CheckInInterval.WEEK:
            return later(start, timedelta(weeks=count))
        case CheckInInterval.MONTH:
            return _months_later(start, count)
        case CheckInInterval.YEAR:
            return _months_later(start, 12 * count)
        case _:
            assert_never(interval)


def _months_later(utc: datetime, months: int) -> datetime | None:
    """The same day and time of a later month in UTC, or the last day of that month where it has no such day."""
    year, month = divmod(utc.year * 12 + utc.month - 1 + months, 12)
    if year > END.year:
        return None
    due = utc.replace(year=year, month=month + 1, day=min(utc.day, monthrange(year, month + 1)[1]))
    return due if due < END else None
