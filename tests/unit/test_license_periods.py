"""When licenses begin, end and must check in, at the instants where it matters and one microsecond to either side."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.license.catalog_model import Policy
from services.license.model import License, Status
from services.license.periods import after, check_in_due, first_expiry, renewed
from services.license.terms import (
    CheckInInterval,
    ExpirationBasis,
    Overrides,
    RenewalBasis,
    Template,
    Terms,
    TransferStrategy,
    check_in_since,
)
from services.license.transitions import anchored_by, change_policy, check_in, renew
from shared.errors import DomainError
from shared.rules.expiry import ended, grace_end

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GRACE = 10 * DAY
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""No expiry reaches this second."""
ZONES: tuple[tzinfo, ...] = (
    ZoneInfo("America/New_York"), ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Pacific/Apia"),
    timezone(timedelta(hours=5, minutes=45)),
)  # fmt: skip
CHANGES = [
    datetime(2026, 3, 8, 6, 30, tzinfo=UTC),  # an hour that New York leaves out is near
    datetime(2026, 11, 1, 5, 30, tzinfo=UTC),  # and one that it has twice
    datetime(2026, 3, 29, 0, 30, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
    datetime(2026, 4, 4, 14, 45, tzinfo=UTC),
    datetime(2011, 12, 29, 20, tzinfo=UTC),  # Apia left out a whole day
]
DAYS, WEEKS, MONTHS, YEARS = CheckInInterval.DAY, CheckInInterval.WEEK, CheckInInterval.MONTH, CheckInInterval.YEAR


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "interval", "count", "due"),
    [
        ("2026-03-01T12:00:00", DAYS, 1, "2026-03-02T12:00:00"),
        ("2024-02-28T00:00:00", DAYS, 2, "2024-03-01T00:00:00"),
        ("2025-02-28T00:00:00", DAYS, 2, "2025-03-02T00:00:00"),
        ("2026-12-31T23:59:59.999999", WEEKS, 1, "2027-01-07T23:59:59.999999"),
        ("2026-01-15T08:30:00", MONTHS, 1, "2026-02-15T08:30:00"),
        ("2026-01-31T08:30:00", MONTHS, 1, "2026-02-28T08:30:00"),
        ("2024-01-31T08:30:00", MONTHS, 1, "2024-02-29T08:30:00"),
        ("2026-01-31T08:30:00", MONTHS, 2, "2026-03-31T08:30:00"),
        ("2026-01-31T08:30:00", MONTHS, 3, "2026-04-30T08:30:00"),
        ("2026-02-28T08:30:00", MONTHS, 1, "2026-03-28T08:30:00"),
        ("2026-11-30T00:00:00.000001", MONTHS, 1, "2026-12-30T00:00:00.000001"),
        ("2026-12-31T00:00:00", MONTHS, 1, "2027-01-31T00:00:00"),
        ("2026-12-31T00:00:00", MONTHS, 14, "2028-02-29T00:00:00"),
        ("2024-02-29T00:00:00", MONTHS, 12, "2025-02-28T00:00:00"),
        ("2024-02-29T23:59:59.999999", YEARS, 1, "2025-02-28T23:59:59.999999"),
        ("2024-02-29T00:00:00", YEARS, 4, "2028-02-29T00:00:00"),
        ("2096-02-29T00:00:00", YEARS, 4, "2100-02-28T00:00:00"),
        ("2096-02-29T00:00:00", YEARS, 8, "2104-02-29T00:00:00"),
        ("2026-06-30T00:00:00", YEARS, 365, "2391-06-30T00:00:00"),
    ],
)
def test_a_check_in_is_due_on_the_same_day_or_the_last_of_its_month(
    start: str, interval: CheckInInterval, count: int, due: str
) -> None:
    assert check_in_due(interval, count, utc(start), None) == utc(due)


def test_a_policy_that_begins_to_require_check_ins_counts_from_then() -> None:
    for since, due in ((None, NOW), (NOW - TICK, NOW), (NOW, NOW), (NOW + TICK, NOW + TICK)):
        assert check_in_due(DAYS, 1, NOW, since) == due + DAY
    begun, other = Terms(require_check_in=True, check_in_interval=DAYS), Terms()
    assert check_in_since(other, None, None, NOW) is None
    assert check_in_since(begun, None, None, NOW) == NOW
    assert check_in_since(begun, other, None, NOW) == NOW
    assert check_in_since(begun, other, NOW - DAY, NOW) == NOW
    assert check_in_since(replace(begun, check_in_count=2), begun, NOW - DAY, NOW) == NOW - DAY
    assert check_in_since(other, begun, NOW - DAY, NOW) is None


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("zone", ZONES, ids=str)
def test_a_moment_is_the_same_in_every_zone(zone: tzinfo, change: datetime) -> None:
    """A day has 24 hours also where a zone's clocks change in it, and a month is one of UTC."""
    for offset in (-TICK, timedelta(0), TICK, 12 * HOUR):
        start = change + offset
        there = start.astimezone(zone)
        assert after(there, DAY) == after(start, DAY) == start + DAY
        assert grace_end(there, DAY) == start + DAY
        for interval in CheckInInterval:
            assert check_in_due(interval, 1, there, None) == check_in_due(interval, 1, start, None)
            assert check_in_due(interval, 1, start - DAY, there) == check_in_due(interval, 1, start, None)
        assert check_in_due(DAYS, 1, there, None) == start + DAY
        assert check_in_due(WEEKS, 1, there, None) == start + 7 * DAY
        for grace in (timedelta(0), DAY):
            end = start + grace
            assert not ended(there, grace, (end - TICK).astimezone(zone))
            assert ended(there, grace, end.astimezone(zone))
            assert ended(there, grace, (end + TICK).astimezone(zone))
        terms = Terms(duration=DAY, renewal_basis=RenewalBasis.FROM_NOW_IF_EXPIRED)
        for now in (start - TICK, start, start + HOUR):
            assert renewed(terms, there, DAY, now.astimezone(zone)) == renewed(terms, start, DAY, now)


def test_nothing_ends_after_the_year_9999() -> None:
    assert after(LAST - DAY - TICK, DAY) == LAST - TICK
    for start in (LAST - DAY, LAST - DAY + TICK, LAST):
        with pytest.raises(DomainError) as caught:
            after(start, DAY)
        assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "OUT_OF_RANGE")]
    assert grace_end(LAST - DAY - TICK, DAY) == LAST - TICK
    assert grace_end(LAST - DAY, DAY) == grace_end(LAST - TICK, 365 * DAY) == LAST
    assert check_in_due(DAYS, 1, LAST - DAY - TICK, None) == LAST - TICK
    assert check_in_due(DAYS, 1, LAST - DAY, None) is None
    assert check_in_due(WEEKS, 365, LAST - DAY, None) is None
    assert check_in_due(MONTHS, 1, utc("9999-11-30T12:00:00"), None) == utc("9999-12-30T12:00:00")
    assert check_in_due(MONTHS, 1, utc("9999-12-01T00:00:00"), None) is None
    assert check_in_due(YEARS, 1, utc("9998-12-31T23:59:58.999999"), None) == LAST - TICK
    assert check_in_due(YEARS, 365, utc("9998-12-31T00:00:00"), None) is None


def test_the_grace_period_begins_where_the_license_expires() -> None:
    assert grace_end(None, GRACE) is None
    assert grace_end(NOW, timedelta(0)) is None
    assert grace_end(NOW, GRACE) == NOW + GRACE
    for grace in (timedelta(0), TICK, GRACE):
        assert not ended(None, grace, NOW)
        end = NOW + grace
        assert [ended(NOW, grace, at) for at in (end - TICK, end, end + TICK)] == [False, True, True]


def test_when_a_new_license_expires() -> None:
    start = NOW + 3 * DAY
    trial = Terms(duration=30 * DAY, is_trial=True, trial_duration=7 * DAY)
    assert first_expiry(trial, None, NOW) == NOW + 7 * DAY
    assert first_expiry(trial, start, NOW) == start + 7 * DAY
    assert first_expiry(replace(trial, duration=None), None, NOW) == NOW + 7 * DAY
    assert first_expiry(replace(trial, trial_duration=None), None, NOW) == NOW + 30 * DAY
    for basis in (ExpirationBasis.FROM_FIRST_USE, ExpirationBasis.FROM_FIRST_VALIDATION):
        assert first_expiry(replace(trial, expiration_basis=basis), start, NOW) is None


RENEWALS = {
    # What it was, relative to now: what a renewal by a day makes of it, by basis.
    "FROM_EXPIRY": {5 * DAY: 6 * DAY, TICK: DAY + TICK, -TICK: DAY - TICK, -GRACE: DAY - GRACE, -2 * GRACE: DAY - 2 * GRACE},
    "FROM_NOW": dict.fromkeys((5 * DAY, TICK, 0 * DAY, -TICK, -GRACE, -2 * GRACE), DAY),
    "FROM_NOW_IF_EXPIRED": {
        5 * DAY: 6 * DAY, TICK: DAY + TICK, -TICK: DAY - TICK,  # in its grace period a license has not expired
        TICK - GRACE: DAY + TICK - GRACE, -GRACE: DAY, -GRACE - TICK: DAY, -2 * GRACE: DAY,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("basis", "before", "expected"),
    [(basis, before, expected) for basis, cases in RENEWALS.items() for before, expected in cases.items()],
)
def test_what_a_renewal_adds_to(basis: str, before: timedelta, expected: timedelta) -> None:
    terms = Terms(duration=DAY, grace_period=GRACE, renewal_basis=RenewalBasis(basis))
    assert renewed(terms, NOW + before, DAY, NOW) == NOW + expected
    assert renew(license_under(terms, NOW + before), NOW).expires_at == NOW + expected


@pytest.mark.parametrize("basis", list(RenewalBasis))
def test_a_license_that_is_renewed_before_it_starts_still_ends_after_its_start(basis: RenewalBasis) -> None:
    starts_at = NOW + 40 * DAY
    before = replace(license_under(Terms(duration=DAY, renewal_basis=basis), starts_at + DAY), starts_at=starts_at)
    expected = {RenewalBasis.FROM_NOW: starts_at + DAY}.get(basis, starts_at + 2 * DAY)
    assert renew(before, NOW).expires_at == expected


def license_under(terms: Terms, expires_at: datetime | None, *, anchored: bool = True) -> License:
    long_ago = NOW - 90 * DAY
    return License(
        "lic_1", None, "prod_1", "pol_1", None, None, "", Status.ACTIVE, "", "XYZW", None, expires_at,
        long_ago if anchored else None, long_ago, None, Overrides(), {}, {}, 1, long_ago, long_ago, terms,
    )  # fmt: skip


def policy_of(terms: Terms) -> Policy:
    return Policy("pol_2", None, "prod_1", "", Template.CUSTOM, terms, None, {}, {}, 1, NOW, NOW)


OLD = NOW + 5 * DAY
NEW = NOW + DAY
FOREVER = None
WAITS = "waits"
CREATION, VALIDATION, USE, ACTIVATION = ExpirationBasis
KEEP, RESET = TransferStrategy.KEEP_EXPIRY, TransferStrategy.RESET_EXPIRY


@pytest.mark.parametrize(
    ("strategy", "basis", "duration", "was_anchored", "expected"),
    [
        (KEEP, CREATION, DAY, True, OLD),
        (KEEP, VALIDATION, DAY, True, OLD),
        (KEEP, USE, DAY, True, OLD),
        (KEEP, CREATION, None, True, OLD),
        (KEEP, CREATION, DAY, False, NEW),
        (KEEP, VALIDATION, DAY, False, WAITS),
        (KEEP, USE, DAY, False, WAITS),
        (KEEP, CREATION, None, False, FOREVER),
        (RESET, CREATION, DAY, True, NEW),
        (RESET, VALIDATION, DAY, True, WAITS),
        (RESET, USE, DAY, True, WAITS),
        (RESET, CREATION, None, True, FOREVER),
        (RESET, CREATION, DAY, False, NEW),
        (RESET, VALIDATION, DAY, False, WAITS),
        (RESET, USE, DAY, False, WAITS),
        (RESET, CREATION, None, False, FOREVER),
    ],
)
def test_the_expiry_of_a_license_that_comes_under_another_policy(
    strategy: TransferStrategy,
    basis: ExpirationBasis,
    duration: timedelta | None,
    was_anchored: bool,
    expected: datetime | str | None,
) -> None:
    counts = expected != WAITS
    waiting = Terms(duration=3 * DAY, expiration_basis=VALIDATION)
    before = license_under(waiting, OLD if was_anchored else None, anchored=was_anchored)
    terms = Terms(duration=duration, expiration_basis=basis, transfer_strategy=strategy)
    moved = change_policy(before, policy_of(terms), NOW)
    assert (moved.policy_id, moved.terms, moved.revision) == ("pol_2", terms, 2)
    assert moved.expires_at == (expected if counts else None)
    assert (moved.expiry_anchored_at is not None) is counts
    for other in (VALIDATION, USE):
        used = anchored_by(moved, other, NOW + DAY)
        if counts or other is not basis:
            assert used is moved
        else:
            assert (used.expires_at, used.expiry_anchored_at, used.revision) == (NOW + 2 * DAY, NOW + DAY, 3)
            assert anchored_by(used, other, NOW + 9 * DAY) is used


def test_the_strategy_is_that_of_the_policy_it_comes_under() -> None:
    keep, reset = (Terms(duration=DAY, transfer_strategy=strategy) for strategy in (KEEP, RESET))
    assert change_policy(license_under(reset, OLD), policy_of(keep), NOW).expires_at == OLD
    assert change_policy(license_under(keep, OLD), policy_of(reset), NOW).expires_at == NEW


def test_time_that_begins_anew_begins_no_earlier_than_the_license() -> None:
    starts_at = NOW + 2 * DAY
    before = replace(license_under(Terms(), None, anchored=False), starts_at=starts_at)
    for basis, moment in ((CREATION, NOW), (VALIDATION, NOW), (USE, NOW)):
        terms = Terms(duration=DAY, expiration_basis=basis, transfer_strategy=RESET)
        moved = anchored_by(change_policy(before, policy_of(terms), NOW), basis, moment)
        assert moved.expires_at == starts_at + DAY


def test_a_reset_can_bring_an_expired_license_back_and_a_trial_gets_its_trial() -> None:
    over = license_under(Terms(), NOW - DAY)
    assert over.status_at(NOW) is Status.EXPIRED
    trial = Terms(duration=30 * DAY, is_trial=True, trial_duration=DAY, transfer_strategy=RESET)
    back = change_policy(over, policy_of(trial), NOW)
    assert (back.status_at(NOW), back.expires_at) == (Status.ACTIVE, NEW)
    assert change_policy(over, policy_of(replace(trial, transfer_strategy=KEEP)), NOW).status_at(NOW) is Status.EXPIRED


def test_check_ins_count_from_the_change_where_only_the_new_policy_requires_them() -> None:
    without, with_ = Terms(), Terms(require_check_in=True, check_in_interval=DAYS)
    since = NOW - 60 * DAY
    asks = replace(policy_of(with_), check_in_since=since)
    assert change_policy(license_under(without, None), asks, NOW).check_in_due == NOW + DAY
    late = license_under(with_, None)
    assert change_policy(late, asks, NOW).check_in_due == since + DAY
    assert change_policy(late, policy_of(without), NOW).check_in_due is None


def test_a_license_that_has_not_started_owes_no_check_in() -> None:
    daily = license_under(Terms(require_check_in=True, check_in_interval=DAYS), None)
    starts_at = NOW + 9 * DAY
    for check_in_from in (None, NOW, starts_at):
        later = replace(daily, starts_at=starts_at, check_in_from=check_in_from)
        assert later.check_in_due == starts_at + DAY
    assert check_in(replace(daily, starts_at=starts_at), NOW).check_in_due == starts_at + DAY
    assert replace(daily, starts_at=starts_at, check_in_from=starts_at + HOUR).check_in_due == starts_at + HOUR + DAY
    assert replace(daily, check_in_from=None).check_in_due == daily.created_at + DAY


MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC))


@settings(deadline=None)
@given(MOMENTS, st.sampled_from(ZONES), st.integers(1, 365), st.sampled_from(list(CheckInInterval)))
def test_more_of_an_interval_is_never_sooner(
    start: datetime, zone: tzinfo, count: int, interval: CheckInInterval
) -> None:
    due = check_in_due(interval, count, start.astimezone(zone), None)
    assert due == check_in_due(interval, count, start, None)
    later = check_in_due(interval, count + 1, start, None)
    assert due is None or start < due <= LAST
    assert later is None or (due is not None and due < later)
