"""Whether there is a seat: what a machine would take against what the license allows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.machine.model import Machine, State
from services.machine.terms import Terms
from shared.errors import DomainError, FieldViolation, Reason, fields_invalid
from shared.facts.machines import SeatsValue
from shared.rules.machine_terms import MachineLeasing, SeatAcquire
from shared.rules.seats import cap


@dataclass(frozen=True, slots=True)
class Taking:
    """What the machines of a license would be together with one more, or with one that has changed.

    `user_machines` are those of its user; None where it has none.
    """

    machines: int
    users: int
    cores: int
    memory_bytes: int
    disk_bytes: int
    user_machines: int | None


def taking(seats: SeatsValue, machine: Machine, before: Machine | None, of_user: int) -> Taking:
    """With `machine` in place of `before`, or beside all others. `of_user` are the other machines of its user."""
    has_user = machine.user_id is not None
    more_users = int(has_user and of_user == 0)
    if before is None:
        machines, users = seats.machines + 1, seats.users + more_users
        cores, memory, disk = 0, 0, 0
    else:
        machines = seats.machines
        users = seats.users + (more_users if machine.user_id != before.user_id else 0)
        cores, memory, disk = before.cores or 0, before.memory_bytes or 0, before.disk_bytes or 0
    return Taking(
        machines=machines,
        users=users,
        cores=seats.cores - cores + (machine.cores or 0),
        memory_bytes=seats.memory_bytes - memory + (machine.memory_bytes or 0),
        disk_bytes=seats.disk_bytes - disk + (machine.disk_bytes or 0),
        user_machines=of_user + 1 if has_user else None,
    )


def taken(seats: SeatsValue, then: Taking, at: datetime) -> SeatsValue:
    """What the record counts once the machine has its seat, since `at`."""
    return replace(
        seats, machines=then.machines, users=then.users, cores=then.cores, memory_bytes=then.memory_bytes,
        disk_bytes=then.disk_bytes, first_activated_at=seats.first_activated_at or at,
    )  # fmt: skip


def behind(then: Taking, ahead: int) -> Taking:
    """With those who wait for a seat before the machine on seats already."""
    of_user = None if then.user_machines is None else then.user_machines + ahead
    return replace(then, machines=then.machines + ahead, user_machines=of_user)


def within(terms: Terms, user_id: str | None) -> str | None:
    """The user whose seats a machine waits for; None where it may be anybody's."""
    return user_id if terms.machine_leasing is MachineLeasing.PER_USER else None


def exceeded(terms: Terms, then: Taking, now: SeatsValue) -> tuple[str, int] | None:
    """The first limit that would be exceeded, overage and all, and what it allows; None where there is room.

    What is exceeded already, since a limit was lowered, may not grow.
    """
    per_user = terms.machine_leasing is MachineLeasing.PER_USER
    machines = (then.user_machines or 0, 0) if per_user else (then.machines, now.machines)
    counted = {
        "max_machines": machines,
        "max_users": (then.users, now.users),
        "max_cores": (then.cores, now.cores),
        "max_memory_bytes": (then.memory_bytes, now.memory_bytes),
        "max_disk_bytes": (then.disk_bytes, now.disk_bytes),
    }
    for name, (wanted, taken) in counted.items():
        most = cap(terms.limit(name), terms.overage_strategy)
        if most is not None and wanted > most and wanted > taken:
            return name, most
    return None


def overage(terms: Terms, then: Taking) -> bool:
    """Whether more machines are there than the limit itself says."""
    limit = terms.limit("max_machines")
    return limit is not None and then.machines > limit


def evicted(terms: Terms, live: Sequence[Machine], now: datetime) -> Machine | None:
    """Whose seat a new machine takes where all are taken; None where the policy lets it take none. A machine that is offline
    works on whatever is decided here, so that its seat is not free to take."""
    live = [one for one in live if not one.offline_at(now)]
    if not terms.floating or not live:
        return None

    def last_heard(machine: Machine) -> datetime:
        return machine.last_heartbeat_at or machine.activated_at

    match terms.seat_acquire:
        case SeatAcquire.EVICT_OLDEST:
            return min(live, key=lambda one: (one.activated_at, one.machine_id))
        case SeatAcquire.EVICT_DEAD_FIRST:
            dead = [one for one in live if one.state_at(now, terms) is State.DEAD]
            return min(dead or live, key=lambda one: (last_heard(one), one.machine_id))
        case _:
            return None


def refuse_full(license_id: str, limit: str, allowed: int) -> DomainError:
    """MACHINE_LIMIT_EXCEEDED."""
    return DomainError(
        Reason.MACHINE_LIMIT_EXCEEDED,
        f"the license allows {allowed} for {limit}, and they are taken",
        metadata={"id": license_id, "limit": limit, "allowed": str(allowed)},
    )


def refuse_nobody(terms: Terms, user_id: str | None) -> None:
    """FIELD_INVALID where seats are counted per user, and none is named."""
    if terms.machine_leasing is MachineLeasing.PER_USER and user_id is None:
        raise fields_invalid(
            (FieldViolation("user_id", "REQUIRED", "is required: the policy leases machines per user"),)
        )
