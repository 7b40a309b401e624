"""When machines are due, dead, revivable and culled, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.heartbeats import (
    DRIFT,
    HeartbeatBasis,
    HeartbeatCull,
    HeartbeatResurrection,
    HeartbeatStatus,
    begins_at,
    culled_at,
    deadline,
    died_at,
    may_revive,
    revivable_until,
    status_at,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEP = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
ALIVE, DEAD, NOT_STARTED = HeartbeatStatus.ALIVE, HeartbeatStatus.DEAD, HeartbeatStatus.NOT_STARTED
MINUTES = {
    HeartbeatResurrection.NO_REVIVE: 0,
    HeartbeatResurrection.REVIVE_1_MINUTE: 1,
    HeartbeatResurrection.REVIVE_2_MINUTES: 2,
    HeartbeatResurrection.REVIVE_5_MINUTES: 5,
    HeartbeatResurrection.REVIVE_10_MINUTES: 10,
    HeartbeatResurrection.REVIVE_15_MINUTES: 15,
}
TIMES = st.datetimes(
    datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.sampled_from((UTC, timezone(timedelta(hours=5.5))))
)
INTERVALS = st.timedeltas(timedelta(seconds=60), timedelta(days=90))


def due(
    began: datetime | None = NOW,
    beat: datetime | None = None,
    offline: datetime | None = None,
    *,
    required: bool = True,
    interval: timedelta = MINUTE,
) -> datetime | None:
    return deadline(
        required=required, interval=interval, heartbeat_from=began, last_heartbeat_at=beat, offline_until=offline
    )


@given(TIMES, st.none() | TIMES, st.none() | TIMES, INTERVALS)
def test_the_clock_runs_from_the_latest_of_its_beginning_the_last_beat_and_the_end_of_the_file(
    began: datetime, beat: datetime | None, offline: datetime | None, interval: timedelta
) -> None:
    at = due(began, beat, offline, interval=interval)
    assert at is not None
    known = [one for one in (began, beat, offline) if one is not None]
    assert all(at >= one.astimezone(UTC) + interval + DRIFT for one in known)
    assert any(at == one.astimezone(UTC) + interval + DRIFT for one in known)
    assert at.tzinfo is UTC


@given(st.none() | TIMES, st.none() | TIMES, st.none() | TIMES, INTERVALS, st.booleans())
def test_nothing_is_due_before_the_clock_has_begun_or_where_nothing_is_required(
    began: datetime | None, beat: datetime | None, offline: datetime | None, interval: timedelta, required: bool
) -> None:
    assert (due(began, beat, offline, interval=interval, required=required) is None) == (began is None or not required)


@given(TIMES, TIMES, TIMES, INTERVALS)
def test_a_later_word_never_makes_the_deadline_earlier(
    began: datetime, beat: datetime, later: datetime, interval: timedelta
) -> None:
    before, after = due(began, beat, interval=interval), due(began, max(beat, later), interval=interval)
    assert before is not None
    assert after is not None
    assert after >= before


def test_a_deadline_past_the_calendar_is_none() -> None:
    assert due(datetime.max.replace(tzinfo=UTC)) is None


@pytest.mark.parametrize("recorded", [ALIVE, NOT_STARTED])
def test_a_machine_is_dead_at_its_deadline_and_no_microsecond_before(recorded: HeartbeatStatus) -> None:
    at = NOW + timedelta(seconds=90)
    assert due() == at
    assert status_at(recorded, at, at - STEP) is recorded
    assert status_at(recorded, at, at) is DEAD
    assert status_at(recorded, at, at + STEP) is DEAD
    assert status_at(recorded, None, at + STEP) is recorded
    assert died_at(None, at, at - STEP) is None
    assert died_at(None, at, at) == died_at(None, at, at + MINUTE) == at
    assert died_at(None, None, at) is None


def test_what_is_recorded_as_dead_is_dead_until_a_change_of_the_record() -> None:
    assert status_at(DEAD, None, NOW) is status_at(DEAD, NOW + MINUTE, NOW) is DEAD
    assert died_at(NOW - MINUTE, NOW + MINUTE, NOW) == NOW - MINUTE


@pytest.mark.parametrize("resurrection", MINUTES)
def test_a_machine_comes_back_within_its_window_only(resurrection: HeartbeatResurrection) -> None:
    end = NOW + timedelta(minutes=MINUTES[resurrection])
    assert revivable_until(NOW, resurrection) == end
    assert may_revive(NOW, resurrection, end - STEP)
    assert not may_revive(NOW, resurrection, end)
    assert not may_revive(NOW, resurrection, end + STEP)
    assert culled_at(NOW, resurrection, HeartbeatCull.DEACTIVATE_DEAD) == end
    assert culled_at(NOW, resurrection, HeartbeatCull.KEEP_DEAD) is None


@given(TIMES, TIMES, st.sampled_from(HeartbeatResurrection))
def test_no_machine_is_culled_that_may_still_come_back(
    died: datetime, now: datetime, resurrection: HeartbeatResurrection
) -> None:
    culled = culled_at(died, resurrection, HeartbeatCull.DEACTIVATE_DEAD)
    assert may_revive(died, resurrection, now) == (culled is None or now < culled)


def test_a_machine_that_may_always_come_back_is_never_culled() -> None:
    always = HeartbeatResurrection.ALWAYS_REVIVE
    assert may_revive(NOW, always, NOW + timedelta(days=3000))
    assert revivable_until(NOW, always) is None
    assert culled_at(NOW, always, HeartbeatCull.DEACTIVATE_DEAD) is None


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("basis", HeartbeatBasis)
def test_a_new_machine_owes_heartbeats_at_once_only_where_they_are_required_from_its_creation(
    basis: HeartbeatBasis, required: bool
) -> None:
    at_once = required and basis is HeartbeatBasis.FROM_CREATION
    assert begins_at(basis, required=required, activated_at=NOW) == (NOW if at_once else None)
