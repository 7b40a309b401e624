"""Boundaries of a license: every moment once, as the terms are when it comes, in the order of the moments."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.license.boundary_model import Boundary, Course, Moments, due, moments
from services.license.model import Status

DAY = timedelta(days=1)
EXPIRY = datetime(2026, 3, 31, 12, tzinfo=UTC)
PERPETUAL = Course(Status.ACTIVE, None, None, False, None, timedelta(0))
PLAIN = replace(PERPETUAL, expires_at=EXPIRY, ends_at=EXPIRY)
GRACE = replace(PLAIN, ends_at=EXPIRY + 7 * DAY)
CHECKED = replace(PERPETUAL, check_in_at=EXPIRY, check_in_interval=30 * DAY)
EVER = EXPIRY + timedelta(days=10_000)
FIRST = datetime.min.replace(tzinfo=UTC)


def told(terms: Course, before: Moments, now: datetime) -> list[str]:
    return [kind.value for kind, _ in due(terms, before, now).tell]


@pytest.mark.parametrize(("terms", "expected"), [
    (PERPETUAL, []),
    (PLAIN, [("expiring_soon", EXPIRY - 3 * DAY), ("expired", EXPIRY)]),
    (GRACE, [("expiring_soon", EXPIRY - 3 * DAY), ("grace_started", EXPIRY), ("expired", EXPIRY + 7 * DAY)]),
    (CHECKED, [("check_in.required_soon", EXPIRY - 3 * DAY), ("check_in.overdue", EXPIRY)]),
    (
        replace(CHECKED, check_in_interval=DAY),
        [("check_in.required_soon", EXPIRY - timedelta(hours=6)), ("check_in.overdue", EXPIRY)],
    ),
    # Past its end a license need not check in, unless it works on.
    (replace(PLAIN, check_in_at=EXPIRY, check_in_interval=DAY), [("expiring_soon", EXPIRY - 3 * DAY), ("expired", EXPIRY)]),
    (
        replace(PLAIN, check_in_at=EXPIRY + DAY, check_in_interval=4 * DAY, goes_on=True),
        [
            ("expiring_soon", EXPIRY - 3 * DAY), ("expired", EXPIRY), ("check_in.required_soon", EXPIRY),
            ("check_in.overdue", EXPIRY + DAY),
        ],
    ),
    (
        replace(PLAIN, check_in_at=EXPIRY - DAY, check_in_interval=4 * DAY),
        [
            ("expiring_soon", EXPIRY - 3 * DAY), ("check_in.required_soon", EXPIRY - 2 * DAY),
            ("check_in.overdue", EXPIRY - DAY), ("expired", EXPIRY),
        ],
    ),
    (replace(PLAIN, expires_at=FIRST + DAY, ends_at=FIRST + DAY), [("expiring_soon", FIRST), ("expired", FIRST + DAY)]),
])  # fmt: skip
def test_the_moments_of_a_license_that_nobody_looked_at_for_long(
    terms: Course, expected: list[tuple[str, datetime]]
) -> None:
    found = due(terms, {}, EVER)
    assert [(kind.value, at) for kind, at in found.tell] == [(f"license.{name}", at) for name, at in expected]
    assert dict(found.told) == moments(terms) == dict(found.tell)
    assert found.look_at is None
    assert due(terms, found.told, EVER).tell == (), "each is told once"


@pytest.mark.parametrize("terms", [PLAIN, GRACE, CHECKED])
def test_each_moment_is_told_when_it_comes_and_the_next_look_is_at_the_next(terms: Course) -> None:
    before: Moments = {}
    coming = sorted(moments(terms).items(), key=lambda one: one[1])
    for number, (kind, at) in enumerate(coming):
        early = due(terms, before, at - timedelta(microseconds=1))
        assert (early.tell, early.look_at) == ((), at)
        on_time = due(terms, early.told, at)
        assert on_time.tell == ((kind, at),)
        assert on_time.look_at == (coming[number + 1][1] if number + 1 < len(coming) else None)
        before = on_time.told


@pytest.mark.parametrize("status", [Status.SUSPENDED, Status.REVOKED, Status.BANNED])
def test_a_license_that_is_not_active_tells_nothing_and_forgets_nothing(status: Status) -> None:
    before = due(GRACE, {}, EXPIRY).told
    found = due(replace(GRACE, status=status), before, EVER)
    assert (found.tell, found.told, found.look_at) == ((), before, None)
    assert told(GRACE, found.told, EVER) == ["license.expired"], "what has not been told comes once it is active again"


def test_a_renewed_license_has_boundaries_of_its_new_period() -> None:
    before = due(PLAIN, {}, EXPIRY).told
    later = replace(PLAIN, expires_at=EXPIRY + 30 * DAY, ends_at=EXPIRY + 30 * DAY)
    renewed = due(later, before, EXPIRY + DAY)
    assert (renewed.tell, renewed.told, renewed.look_at) == ((), {}, EXPIRY + 27 * DAY)
    assert told(later, renewed.told, EVER) == ["license.expiring_soon", "license.expired"]


def test_an_expiry_that_was_told_is_told_again_when_it_lay_ahead_meanwhile() -> None:
    before = due(PLAIN, {}, EXPIRY).told
    later = replace(PLAIN, expires_at=EVER, ends_at=EVER)
    between = due(later, before, EXPIRY + DAY).told
    assert told(PLAIN, between, EXPIRY + 2 * DAY) == ["license.expiring_soon", "license.expired"]


def test_a_boundary_that_was_moved_before_it_was_seen_is_not_told() -> None:
    later = replace(PLAIN, expires_at=EXPIRY + 30 * DAY, ends_at=EXPIRY + 30 * DAY)
    assert told(later, {}, EXPIRY + DAY) == []


def test_grace_that_a_policy_gives_or_takes_afterwards() -> None:
    expired = due(PLAIN, {}, EXPIRY).told
    given = due(GRACE, expired, EXPIRY + DAY)
    assert given.tell == ((Boundary.GRACE_STARTED, EXPIRY),)
    assert given.look_at == EXPIRY + 7 * DAY
    taken = due(PLAIN, given.told, EXPIRY + 2 * DAY)
    assert taken.tell == ((Boundary.EXPIRED, EXPIRY),), "it has expired once more"
