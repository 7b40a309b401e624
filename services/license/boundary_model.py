"""Moments at which time alone changes what a license is, or is about to; and which of them are to be told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from services.license.model import EXPIRING_WITHIN, License, Status
from services.license.terms import LENIENT, CheckInInterval
from shared.rules.expiry import grace_end

_INTERVALS: Final[Mapping[CheckInInterval, timedelta]] = {
    CheckInInterval.DAY: timedelta(days=1),
    CheckInInterval.WEEK: timedelta(weeks=1),
    CheckInInterval.MONTH: timedelta(days=30),
    CheckInInterval.YEAR: timedelta(days=365),
}
"""About how long an interval is: only to tell of it some time before its end."""

_LOOK_EVERY: Final = timedelta(days=1)
_LOOKS_IN_A_DURATION: Final = 10
"""A license that got its first machine right after a look is looked at long before it ends."""


class Boundary(StrEnum):
    """The kinds of moments. The value is the event's name."""

    EXPIRING_SOON = "license.expiring_soon"
    GRACE_STARTED = "license.grace_started"
    EXPIRED = "license.expired"
    CHECK_IN_SOON = "license.check_in.required_soon"
    CHECK_IN_OVERDUE = "license.check_in.overdue"


Moments = Mapping[Boundary, datetime]


@dataclass(frozen=True, slots=True)
class Course:
    """What of a license and its policy makes its boundaries.

    `ends_at` is when it stops to work, at the end of its grace; `goes_on` says that it works on even then. `check_in_at` is
    when the next check-in is due. `look_every` is how often to look at a license that waits for its first machine: nobody
    tells of that.
    """

    status: Status
    expires_at: datetime | None
    ends_at: datetime | None
    goes_on: bool
    check_in_at: datetime | None
    check_in_interval: timedelta
    look_every: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be told now, in the order of the moments; what has been told then; and when to look again, if at all."""

    tell: tuple[tuple[Boundary, datetime], ...]
    told: Moments
    look_at: datetime | None


def course_of(license_: License) -> Course:
    """What the license's own fields, and its policy's as they are now, say."""
    terms, interval, look_every = license_.terms, license_.terms.check_in_interval, None
    if license_.awaits_activation and license_.first_activated_at is None and terms.first_duration is not None:
        look_every = min(_LOOK_EVERY, terms.first_duration / _LOOKS_IN_A_DURATION)
    return Course(
        license_.status,
        license_.expires_at,
        grace_end(license_.expires_at, terms.grace_period) or license_.expires_at,
        terms.expiration_strategy in LENIENT,
        license_.check_in_due,
        timedelta(0) if interval is None else _INTERVALS[interval] * terms.check_in_count,
        look_every,
    )


def moments(course: Course) -> Moments:
    """The boundaries of a license as it is: past ones and those to come. Only an active one has any."""
    found: dict[Boundary, datetime] = {}
    if course.status is not Status.ACTIVE:
        return found
    if course.expires_at is not None and course.ends_at is not None:
        found[Boundary.EXPIRING_SOON] = _before(course.expires_at, EXPIRING_WITHIN)
        if course.ends_at > course.expires_at:
            found[Boundary.GRACE_STARTED] = course.expires_at
        found[Boundary.EXPIRED] = course.ends_at
    if course.check_in_at is not None and (
        course.ends_at is None or course.goes_on or course.check_in_at < course.ends_at
    ):
        found[Boundary.CHECK_IN_SOON] = _before(course.check_in_at, min(EXPIRING_WITHIN, course.check_in_interval / 4))
        found[Boundary.CHECK_IN_OVERDUE] = course.check_in_at
    return found


def due(course: Course, told: Moments, now: datetime) -> Due:
    """What to tell of a license at `now`, each moment once.

    A moment that lies ahead is forgotten among those that were told: when it comes, it is another expiry, even one of the
    same time. A license that is not active tells nothing, and forgets nothing.
    """
    if course.status is not Status.ACTIVE:
        return Due((), told, None)
    there = moments(course)
    passed = {kind: at for kind, at in there.items() if at <= now}
    order = list(Boundary)
    tell = sorted(
        ((kind, at) for kind, at in passed.items() if told.get(kind) != at),
        key=lambda one: (one[1], order.index(one[0])),
    )
    looks = [at for at in there.values() if at > now]
    if course.look_every is not None:
        looks.append(now + course.look_every)
    return Due(tuple(tell), passed, min(looks, default=None))


def _before(at: datetime, span: timedelta) -> datetime:
    """`at - span`, or the first moment of the calendar."""
    first = datetime.min.replace(tzinfo=at.tzinfo)
    return at - span if at - first > span else first
