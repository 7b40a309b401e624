"""When a license expires whose duration counts from its first machine on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.expiry import END, effective_expiry, ended, grace_end

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
ACTIVATION = "FROM_FIRST_ACTIVATION"
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
DURATIONS = st.timedeltas(TICK, timedelta(days=36500))


@dataclass(frozen=True)
class Given:
    """A license as it is stored, its policy, and its first machine."""

    expires_at: datetime | None = None
    anchored: bool = False
    basis: str = ACTIVATION
    first_duration: timedelta | None = DAY
    starts_at: datetime | None = None
    first_activated_at: datetime | None = NOW

    @property
    def expiry(self) -> datetime | None:
        return effective_expiry(
            expires_at=self.expires_at,
            anchored=self.anchored,
            expiration_basis=self.basis,
            first_duration=self.first_duration,
            starts_at=self.starts_at,
            first_activated_at=self.first_activated_at,
        )


@pytest.mark.parametrize(
    ("starts_at", "counts_from"),
    [
        (None, NOW),
        (NOW - DAY, NOW),
        (NOW - TICK, NOW),
        (NOW, NOW),
        (NOW + TICK, NOW + TICK),
        (NOW + DAY, NOW + DAY),
    ],
)
def test_the_duration_counts_from_the_first_machine_and_never_before_the_start(
    starts_at: datetime | None, counts_from: datetime
) -> None:
    assert Given(starts_at=starts_at).expiry == counts_from + DAY


def test_only_the_basis_makes_the_first_machine_count() -> None:
    for basis, anchored, activated, duration in product(
        (ACTIVATION, "FROM_CREATION", "FROM_FIRST_VALIDATION", "FROM_FIRST_USE"),
        (True, False),
        (None, NOW),
        (None, DAY),
    ):
        stored = NOW + 9 * DAY if anchored else None
        counts = basis == ACTIVATION and not anchored and activated is not None and duration is not None
        found = Given(stored, anchored, basis, duration, first_activated_at=activated).expiry
        assert found == (NOW + DAY if counts else stored)


def test_a_license_with_its_first_machine_ends_in_the_very_instant() -> None:
    for grace in (timedelta(0), 2 * DAY):
        end = NOW + DAY + grace
        assert [ended(Given().expiry, grace, at) for at in (end - TICK, end, end + TICK)] == [False, True, True]
        assert not ended(Given(first_activated_at=None).expiry, grace, datetime.max.replace(tzinfo=UTC))


def test_an_expiry_never_passes_the_calendar() -> None:
    for first in (END - DAY, END - TICK, END, datetime.max.replace(tzinfo=UTC)):
        assert Given(first_activated_at=first).expiry == END
        assert grace_end(Given(first_activated_at=first).expiry, DAY) == END
    assert Given(first_activated_at=END - DAY - TICK).expiry == END - TICK


def test_a_day_has_24_hours_where_the_clocks_change() -> None:
    zone = ZoneInfo("America/New_York")
    change = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    once, again = change.astimezone(zone), (change + timedelta(hours=1)).astimezone(zone)
    assert Given(first_activated_at=once).expiry == change + DAY
    assert Given(first_activated_at=once, starts_at=again).expiry == change + DAY + timedelta(hours=1)


@given(MOMENTS, st.none() | MOMENTS, DURATIONS)
def test_a_longer_duration_or_a_later_machine_never_ends_a_license_earlier(
    first: datetime, starts_at: datetime | None, duration: timedelta
) -> None:
    license_ = Given(first_activated_at=first, starts_at=starts_at, first_duration=duration)
    expiry = license_.expiry
    assert expiry is not None
    assert first <= expiry or expiry == END
    for more in (
        replace(license_, first_duration=duration + TICK),
        replace(license_, first_activated_at=min(first + TICK, END)),
    ):
        assert more.expiry is not None
        assert more.expiry >= expiry
    assert replace(license_, anchored=True, expires_at=expiry).expiry == expiry
