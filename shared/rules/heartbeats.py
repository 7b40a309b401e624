"""Heartbeats of machines: until when a machine counts as alive, since when as dead, and who may come back. Pure.

What is recorded of a machine is its last word, not its state: a deadline passes whether or not anybody has noticed.
A moment belongs to what begins at it, so a machine is dead at its deadline, and its window to come back is over at its end.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

DRIFT: Final = timedelta(seconds=30)
"""How late a heartbeat may be: clocks and networks differ."""


class HeartbeatStatus(StrEnum):
    """Whether a machine beats."""

    NOT_STARTED = "NOT_STARTED"
    ALIVE = "ALIVE"
    DEAD = "DEAD"


class HeartbeatBasis(StrEnum):
    """From when on heartbeats are due."""

    FROM_FIRST_PING = "FROM_FIRST_PING"
    FROM_CREATION = "FROM_CREATION"


class HeartbeatCull(StrEnum):
    """What becomes of a machine that is dead and may not come back any more."""

    DEACTIVATE_DEAD = "DEACTIVATE_DEAD"
    KEEP_DEAD = "KEEP_DEAD"


class HeartbeatResurrection(StrEnum):
    """For how long after its death a heartbeat brings a machine back."""

    NO_REVIVE = "NO_REVIVE"
    REVIVE_1_MINUTE = "REVIVE_1_MINUTE"
    REVIVE_2_MINUTES = "REVIVE_2_MINUTES"
    REVIVE_5_MINUTES = "REVIVE_5_MINUTES"
    REVIVE_10_MINUTES = "REVIVE_10_MINUTES"
    REVIVE_15_MINUTES = "REVIVE_15_MINUTES"
    ALWAYS_REVIVE = "ALWAYS_REVIVE"


_WINDOWS: Final = {
    HeartbeatResurrection.NO_REVIVE: timedelta(0),
    HeartbeatResurrection.REVIVE_1_MINUTE: timedelta(minutes=1),
    HeartbeatResurrection.REVIVE_2_MINUTES: timedelta(minutes=2),
    HeartbeatResurrection.REVIVE_5_MINUTES: timedelta(minutes=5),
    HeartbeatResurrection.REVIVE_10_MINUTES: timedelta(minutes=10),
    HeartbeatResurrection.REVIVE_15_MINUTES: timedelta(minutes=15),
    HeartbeatResurrection.ALWAYS_REVIVE: None,
}


def begins_at(basis: HeartbeatBasis, *, required: bool, activated_at: datetime) -> datetime | None:
    """From when on a new machine owes heartbeats; None for its first. Where none are required, nothing runs without one."""
    return activated_at if required and basis is HeartbeatBasis.FROM_CREATION else None


def deadline(
    *,
    required: bool,
    interval: timedelta,
    heartbeat_from: datetime | None,
    last_heartbeat_at: datetime | None,
    offline_until: datetime | None,
) -> datetime | None:
    """When a machine that says nothing more is dead, in UTC; None for never.

    Args:
        required: Whether its policy requires heartbeats.
        interval: The policy's.
        heartbeat_from: When they began to be due; None where that waits for the first, as it does after a reset.
        last_heartbeat_at: The last one that came, if any.
        offline_until: The end of the machine's offline file, until which its clock stands still.
    """
    if not required or heartbeat_from is None:
        return None
    last = max(at for at in (heartbeat_from, last_heartbeat_at, offline_until) if at is not None)
    try:
        return last.astimezone(UTC) + interval + DRIFT
    except OverflowError:
        return None


def status_at(recorded: HeartbeatStatus, due: datetime | None, now: datetime) -> HeartbeatStatus:
    """The status at `now`, of the recorded one and the deadline. Only what is recorded brings a dead machine back."""
    return HeartbeatStatus.DEAD if due is not None and now >= due else recorded


def died_at(recorded: datetime | None, due: datetime | None, now: datetime) -> datetime | None:
    """Since when a machine is dead: as it is recorded, or else since its deadline; None where it is not."""
    if recorded is not None:
        return recorded
    return due if due is not None and now >= due else None


def revivable_until(died: datetime, resurrection: HeartbeatResurrection) -> datetime | None:
    """Until when a heartbeat brings back a machine that died then; None for always."""
    window = _WINDOWS[resurrection]
    return None if window is None else died.astimezone(UTC) + window


def may_revive(died: datetime, resurrection: HeartbeatResurrection, now: datetime) -> bool:
    """Whether a heartbeat at `now` brings back a machine that died then."""
    until = revivable_until(died, resurrection)
    return until is None or now < until


def culled_at(died: datetime, resurrection: HeartbeatResurrection, cull: HeartbeatCull) -> datetime | None:
    """When a machine that died then is to be deactivated; None for never."""
    return None if cull is HeartbeatCull.KEEP_DEAD else revivable_until(died, resurrection)
