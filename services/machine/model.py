"""Machines and their states, and what is allowed from where. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from services.machine.terms import Terms
from shared.errors import DomainError, Reason
from shared.rules.heartbeats import HeartbeatStatus, begins_at, deadline, status_at


class IdentityKind(StrEnum):
    """What a machine is known by."""

    FINGERPRINT = "FINGERPRINT"
    FINGERPRINT_SET = "FINGERPRINT_SET"
    WORKLOAD = "WORKLOAD"


class DeactivationReason(StrEnum):
    """Why a machine holds no seat any more."""

    SELF = "SELF"
    CUSTOMER = "CUSTOMER"
    ADMIN = "ADMIN"
    EVICTED = "EVICTED"
    TRANSFERRED = "TRANSFERRED"
    LICENSE_ENDED = "LICENSE_ENDED"
    CULLED = "CULLED"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    REPLACED = "REPLACED"


class State(StrEnum):
    """How a machine stands: by its heartbeats while it holds a seat."""

    NOT_STARTED = "NOT_STARTED"
    ALIVE = "ALIVE"
    DEAD = "DEAD"
    DEACTIVATED = "DEACTIVATED"


class Action(StrEnum):
    """What can happen to a machine."""

    PING = "ping"
    REVIVE = "revive"
    DIE = "die"
    RESET_HEARTBEAT = "reset_heartbeat"
    UPDATE = "update"
    REBIND = "rebind"
    TRANSFER = "transfer"
    DEACTIVATE = "deactivate"
    CULL = "cull"
    REPLACE = "replace"
    CHECK_OUT = "check_out"
    CHECK_IN = "check_in"
    START_PROCESS = "start_process"


_ANY_LIVE: Final = {
    Action.RESET_HEARTBEAT: State.NOT_STARTED,
    Action.TRANSFER: State.DEACTIVATED,
    Action.DEACTIVATE: State.DEACTIVATED,
}

TRANSITIONS: Final[Mapping[tuple[State, Action], State]] = MappingProxyType(
    {
        (State.NOT_STARTED, Action.PING): State.ALIVE,
        (State.ALIVE, Action.PING): State.ALIVE,
        (State.DEAD, Action.REVIVE): State.ALIVE,
        (State.NOT_STARTED, Action.DIE): State.DEAD,
        (State.ALIVE, Action.DIE): State.DEAD,
        (State.DEAD, Action.CULL): State.DEACTIVATED,
        (State.DEAD, Action.REPLACE): State.DEACTIVATED,
        **{
            (live, action): target
            for live in (State.NOT_STARTED, State.ALIVE, State.DEAD)
            for action, target in _ANY_LIVE.items()
        },
        **{
            (live, action): live
            for live in (State.NOT_STARTED, State.ALIVE)
            for action in (Action.CHECK_OUT, Action.CHECK_IN, Action.START_PROCESS)
        },
        **{
            (live, action): live
            for live in (State.NOT_STARTED, State.ALIVE, State.DEAD)
            for action in (Action.UPDATE, Action.REBIND)
        },
    }
)
"""The whole table; a pair that is not here is refused. A deactivated machine stays so: its next activation is another one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as it is stored; `fingerprints` and `components` are keyed hashes by name. Ids of what it was activated under
    stay as they were then."""

    machine_id: str
    external_id: str | None
    license_id: str
    product_id: str
    policy_id: str
    user_id: str | None
    identity_kind: IdentityKind
    identity_hash: bytes
    uniqueness_scope: str
    generation: int
    display_name: str
    hostname: str
    platform: str
    ip: str
    cores: int | None
    memory_bytes: int | None
    disk_bytes: int | None
    heartbeat_status: HeartbeatStatus
    heartbeat_from: datetime | None
    died_at: datetime | None
    offline_until: datetime | None
    lease_epoch: int | None
    activated_at: datetime
    deactivated_at: datetime | None
    deactivation_reason: DeactivationReason | None
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    revision: int
    updated_at: datetime
    last_heartbeat_at: datetime | None = None
    lease_expires_at: datetime | None = None
    fingerprints: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    components: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def live(self) -> bool:
        """Whether it holds a seat, by its row."""
        return self.deactivated_at is None

    def lease_over(self, now: datetime) -> bool:
        """Whether it holds its seat by a lease that is over at `now`."""
        return self.live and self.lease_expires_at is not None and self.lease_expires_at <= now

    def offline_at(self, now: datetime) -> bool:
        """Whether it has a file for offline use that is good, and has not come back."""
        return self.offline_until is not None and self.offline_until > now

    def deadline(self, terms: Terms | None) -> datetime | None:
        """When it is dead unless it is heard of before; None where no heartbeat is due, or its license is gone."""
        return deadline(
            required=terms is not None and terms.require_heartbeat and self.live,
            interval=timedelta(0) if terms is None else terms.heartbeat_interval,
            heartbeat_from=self.heartbeat_from,
            last_heartbeat_at=self.last_heartbeat_at,
            offline_until=self.offline_until,
        )

    def state_at(self, now: datetime, terms: Terms | None) -> State:
        """How it stands at `now`, whether or not anybody has written that down yet."""
        if not self.live or self.lease_over(now):
            return State.DEACTIVATED
        return State(status_at(self.heartbeat_status, self.deadline(terms), now).value)


def refuse_unless_allowed(machine: Machine, action: Action, now: datetime, terms: Terms | None) -> State:
    """The state that `action` leads to; STATE_TRANSITION_INVALID where the table has no such pair."""
    state = machine.state_at(now, terms)
    target = TRANSITIONS.get((state, action))
    if target is None:
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            f"cannot {action} a machine that is {state}",
            metadata={"id": machine.machine_id, "from": state.value, "action": action.value},
        )
    return target


def refuse_offline_not(machine: Machine, now: datetime) -> None:
    """STATE_TRANSITION_INVALID for a machine that is not offline."""
    if not machine.offline_at(now):
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            "cannot check_in a machine that has no file which is good",
            metadata={"id": machine.machine_id, "from": "online", "action": Action.CHECK_IN.value},
        )


def refuse_leased(machine: Machine) -> None:
    """OFFLINE_NOT_ALLOWED for a machine whose seat is leased: a lease that nobody renews frees the seat, and a file does not."""
    if machine.lease_epoch is not None:
        raise DomainError(
            Reason.OFFLINE_NOT_ALLOWED,
            "the seat of the machine is leased: only a machine that was activated goes offline",
            metadata={"policyId": machine.policy_id},
        )


def refuse_offline(machine: Machine, now: datetime) -> None:
    """STATE_TRANSITION_INVALID for a machine that is offline, whose seat cannot become a leased one."""
    if machine.offline_at(now):
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            "cannot lease the seat of a machine that has a file which is good",
            metadata={"id": machine.machine_id, "from": "offline", "action": "lease"},
        )


def deactivated(
    machine: Machine, action: Action, reason: DeactivationReason, now: datetime, terms: Terms | None
) -> Machine:
    """Without its seat. STATE_TRANSITION_INVALID."""
    refuse_unless_allowed(machine, action, now, terms)
    return ended(machine, reason, now)


def ended(machine: Machine, reason: DeactivationReason, now: datetime) -> Machine:
    """Without its seat, whatever its heartbeats: what is known of its identity goes with it, and so does its lease."""
    gone = replace(
        machine, deactivated_at=now, deactivation_reason=reason, lease_expires_at=None, fingerprints={}, components={},
    )  # fmt: skip
    return touched(gone, now)


def reset(machine: Machine, now: datetime, terms: Terms | None) -> Machine:
    """Its heartbeats begin anew. STATE_TRANSITION_INVALID."""
    refuse_unless_allowed(machine, Action.RESET_HEARTBEAT, now, terms)
    _, begins = first_heartbeat(terms, now)
    anew = replace(
        machine,
        heartbeat_status=HeartbeatStatus.NOT_STARTED,
        heartbeat_from=begins,
        died_at=None,
        last_heartbeat_at=None,
    )
    return touched(anew, now)


def updated(machine: Machine, changes: Mapping[str, Any], now: datetime, terms: Terms | None) -> Machine:
    """With the named fields changed. STATE_TRANSITION_INVALID."""
    refuse_unless_allowed(machine, Action.UPDATE, now, terms)
    return touched(replace(machine, **changes), now)


def first_heartbeat(terms: Terms | None, now: datetime) -> tuple[HeartbeatStatus, datetime | None]:
    """How the heartbeats of a new machine stand, and from when on they are due."""
    begins = None
    if terms is not None:
        begins = begins_at(terms.heartbeat_basis, required=terms.require_heartbeat, activated_at=now)
    return HeartbeatStatus.NOT_STARTED if begins is None else HeartbeatStatus.ALIVE, begins


def touched(machine: Machine, now: datetime) -> Machine:
    return replace(machine, revision=machine.revision + 1, updated_at=now)
