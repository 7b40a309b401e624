"""What time, or the end of a license, does to a machine, and when to look at it next. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.machine.model import DeactivationReason, Machine, State, ended, touched
from services.machine.terms import Terms
from shared.rules.heartbeats import HeartbeatStatus, culled_at, died_at

RECHECK: Final = timedelta(minutes=5)
"""How long a machine is left alone at most: so late is it seen that its license has ended, or that a policy tightened."""

_SPREAD_S: Final = 60
"""Machines that became due together do not stay together."""

_ENDED: Final = frozenset({"revoked", "banned"})


@dataclass(frozen=True, slots=True)
class Step:
    """The machine after something that is to be told, and the moment that it is about."""

    event: str
    machine: Machine
    at: datetime


@dataclass(frozen=True, slots=True)
class Fate:
    """What has become of a machine, step by step, and when to look at it next: None for never."""

    steps: Sequence[Step]
    look_at: datetime | None


def fate_of(machine: Machine, terms: Terms | None, first_activated_at: datetime | None, now: datetime) -> Fate:
    """Of a machine under the terms of its license, or under none where that is gone."""
    if not machine.live:
        return Fate((), None)
    lease_ends = machine.lease_expires_at
    if lease_ends is not None and lease_ends <= now:
        return _gone(machine, DeactivationReason.LEASE_EXPIRED, lease_ends, now)
    if terms is None or terms.status_at(now, first_activated_at) in _ENDED:
        return _gone(machine, DeactivationReason.LICENSE_ENDED, now, now)
    steps: list[Step] = []
    if machine.state_at(now, terms) is State.DEAD:
        died = died_at(machine.died_at, machine.deadline(terms), now) or now
        if machine.heartbeat_status is not HeartbeatStatus.DEAD:
            machine = buried(machine, died, now)
            steps.append(Step("machine.heartbeat.dead", machine, died))
        culled = (
            culled_at(died, terms.heartbeat_resurrection, terms.heartbeat_cull) if terms.require_heartbeat else None
        )
        if culled is not None and culled <= now:
            gone = ended(machine, DeactivationReason.CULLED, now)
            return Fate((*steps, Step("machine.deactivated", gone, culled)), None)
        return Fate(steps, _next_look(machine, now, culled, lease_ends))
    return Fate((), _next_look(machine, now, machine.deadline(terms), lease_ends))


def buried(machine: Machine, died: datetime, now: datetime) -> Machine:
    """Dead since `died`, which nobody had written down."""
    return touched(replace(machine, heartbeat_status=HeartbeatStatus.DEAD, died_at=died), now)


def _gone(machine: Machine, why: DeactivationReason, at: datetime, now: datetime) -> Fate:
    return Fate((Step("machine.deactivated", ended(machine, why, now), at),), None)


def _next_look(machine: Machine, now: datetime, *moments: datetime | None) -> datetime:
    spread = timedelta(seconds=zlib.crc32(machine.machine_id.encode()) % _SPREAD_S)
    return min((now + RECHECK - spread, *(moment for moment in moments if moment is not None)))
