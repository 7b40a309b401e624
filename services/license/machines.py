"""What a validation says of machines: which one is meant, whether it is fit, and which limits are exceeded. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.license.asked import Asked, User
from services.license.codes import Code
from services.license.facts import Facts
from shared.facts.customers import CustomerValue
from shared.facts.machines import Machine
from shared.rules.fingerprints import MatchingRule, match
from shared.rules.heartbeats import HeartbeatStatus, status_at
from shared.rules.seats import OverageStrategy, cap, effective_limit

PER_LICENSE: Final = "PER_LICENSE"
PER_USER: Final = "PER_USER"


def concerns_machines(facts: Facts) -> bool:
    """Whether any check of machines can fail: there is a limit, or one is asked for or required."""
    return facts.seats is not None or facts.machines.require_components_scope


def machine_of(facts: Facts, asked: Asked, now: datetime) -> Machine | None:
    """The machine that is meant; None where none was found.

    That is the one with the id. Without an id it is the one that has most in common with the fingerprints, of those that are
    heard of where there is one.
    """
    found, wanted = facts.found, asked.machine
    if found is None or wanted is None:
        return None
    if wanted.machine_id:
        return found.named
    fit = (one for one in found.met if not is_dead(facts, one, now) and not is_silent(facts, one, now))
    return next(fit, found.met[0] if found.met else None)


def heartbeat_status(machine: Machine, now: datetime) -> HeartbeatStatus:
    """Whether a machine beats; a seat that was not renewed in time is as good as none."""
    status = status_at(machine.heartbeat_status, machine.deadline, now)
    return status_at(status, machine.lease_expires_at, now)


def has_lost_lease(machine: Machine, now: datetime) -> bool:
    """Whether its seat was not renewed in time."""
    return machine.lease_expires_at is not None and now >= machine.lease_expires_at


def is_dead(facts: Facts, machine: Machine, now: datetime) -> bool:
    """Whether it has missed a heartbeat that its policy requires, or its lease is over."""
    if has_lost_lease(machine, now):
        return True
    status = status_at(machine.heartbeat_status, machine.deadline, now)
    return facts.machines.require_heartbeat and status is HeartbeatStatus.DEAD


def is_silent(facts: Facts, machine: Machine, now: datetime) -> bool:
    """Whether it has never sent a heartbeat though its policy requires them."""
    status = status_at(machine.heartbeat_status, machine.deadline, now)
    return facts.machines.require_heartbeat and status is HeartbeatStatus.NOT_STARTED


def is_users(user: User, customer_id: str | None, customer: CustomerValue | None) -> bool:
    """Whether a customer is the one whom a caller names."""
    if user.customer_id:
        return user.customer_id == customer_id
    if customer is None:
        return False
    if user.subject_ref:
        return user.subject_ref == customer.customer_subject_ref
    return user.email_hash == customer.customer_email_hash


def lacks_machine_id(facts: Facts, asked: Asked, now: datetime) -> bool:
    del now
    if not asked.needs_machine or not facts.machines.require_machine_scope:
        return False
    return asked.machine is None or asked.machine.machine_id == ""


def has_no_machine(facts: Facts, asked: Asked, now: datetime) -> bool:
    """Nothing is said of that where no machine is asked for."""
    del now
    terms = facts.machines
    if facts.seats is None or facts.seats.machines:
        return False
    if asked.machine is not None and asked.machine.is_named:
        return True
    return asked.needs_machine and (terms.require_machine_scope or terms.require_fingerprint)


def has_other_machine(facts: Facts, asked: Asked, now: datetime) -> bool:
    del now
    found = facts.found
    return asked.machine is not None and asked.machine.machine_id != "" and (found is None or found.named is None)


def lacks_fingerprint(facts: Facts, asked: Asked, now: datetime) -> bool:
    del now
    if not asked.needs_machine or not facts.machines.require_fingerprint:
        return False
    return asked.machine is None or asked.machine.fingerprints is None


def has_empty_fingerprint(facts: Facts, asked: Asked, now: datetime) -> bool:
    del facts, now
    return asked.machine is not None and asked.machine.fingerprints is not None and not asked.machine.fingerprints


def has_unknown_fingerprint(facts: Facts, asked: Asked, now: datetime) -> bool:
    """That of another machine than the one with the id is as good as none."""
    del now
    found = facts.found
    if asked.machine is None or not asked.machine.fingerprints or found is None:
        return False
    if found.named is None:
        return not found.met
    return all(one.machine_id != found.named.machine_id for one in found.met)


def has_silent_machine(facts: Facts, asked: Asked, now: datetime) -> bool:
    machine = machine_of(facts, asked, now)
    return machine is not None and not is_dead(facts, machine, now) and is_silent(facts, machine, now)


def has_dead_machine(facts: Facts, asked: Asked, now: datetime) -> bool:
    machine = machine_of(facts, asked, now)
    return machine is not None and is_dead(facts, machine, now)


def lacks_components(facts: Facts, asked: Asked, now: datetime) -> bool:
    del now
    if not asked.needs_machine or not facts.machines.require_components_scope:
        return False
    return asked.machine is None or asked.machine.components is None


def has_empty_components(facts: Facts, asked: Asked, now: datetime) -> bool:
    del facts, now
    return asked.machine is not None and asked.machine.components is not None and not asked.machine.components


def has_other_components(facts: Facts, asked: Asked, now: datetime) -> bool:
    """Of a machine that was found."""
    machine = machine_of(facts, asked, now)
    if machine is None or asked.machine is None or not asked.machine.components:
        return False
    rule = MatchingRule(facts.machines.component_matching)
    return not match(rule, asked.machine.components, machine.components).is_met


@dataclass(frozen=True, slots=True)
class Taken:
    """How much of a limit is taken. `limit` None is no limit; `most` is what the policy's overage makes of it, None for any
    number."""

    code: Code
    taken: int
    limit: int | None
    most: int | None

    @property
    def is_exceeded(self) -> bool:
        """Whether more is taken than the limit says."""
        return self.limit is not None and self.taken > self.limit

    @property
    def is_refused(self) -> bool:
        """Whether more is taken than even the overage allows."""
        return self.most is not None and self.taken > self.most


LIMITS: Final = {
    Code.TOO_MANY_USERS: "users",
    Code.MACHINE_LIMIT_EXCEEDED: "machines",
    Code.TOO_MANY_CORES: "cores",
    Code.TOO_MUCH_MEMORY: "memory_bytes",
    Code.TOO_MUCH_DISK: "disk_bytes",
    Code.TOO_MANY_PROCESSES: "processes",
}
"""What each code of a limit counts, by the names of the facts."""
_OVERRIDABLE: Final = {name: f"MAX_{name.upper()}" for name in LIMITS.values()}


def limit_of(facts: Facts, name: str) -> int | None:
    """One limit as its policy has it, or the license itself where its policy lets it; None for none."""
    own, of_policy = getattr(facts.overrides, name), getattr(facts.machines.limits, name)
    return effective_limit(of_policy, own, facts.overridable, _OVERRIDABLE[name])


def taken(facts: Facts, code: Code) -> Taken:
    """How much of one limit is taken. A limit that counts for each user or machine holds as often as there are any."""
    name, terms, seats = LIMITS[code], facts.machines, facts.seats
    limit = limit_of(facts, name)
    if limit is None or seats is None:
        return Taken(code, 0 if seats is None else getattr(seats, name), None, None)
    times = 1
    if code is Code.MACHINE_LIMIT_EXCEEDED and terms.machine_leasing == PER_USER:
        times = seats.users
    elif code is Code.TOO_MANY_PROCESSES and terms.process_leasing != PER_LICENSE:
        times = seats.users if terms.process_leasing == PER_USER else seats.machines
    most = cap(limit, OverageStrategy(terms.overage_strategy))
    times = max(1, times)
    return Taken(code, getattr(seats, name), limit * times, None if most is None else most * times)


def machine_boundaries(facts: Facts) -> Iterator[datetime]:
    """The moments at which a machine that may be meant is dead unless it is heard of before."""
    found = facts.found
    if found is None:
        return
    for machine in found.met if found.named is None else (*found.met, found.named):
        if machine.deadline is not None:
            yield machine.deadline
        if machine.lease_expires_at is not None:
            yield machine.lease_expires_at
