"""Processes of machines: until when they live, and whether there is a place for one more. Pure.

A process has a place from its first heartbeat until it ends, is dead, or its machine loses its seat. Nothing of it stays then:
a process that starts anew is another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_never

from services.machine.model import Machine
from services.machine.seats import refuse_full
from services.machine.terms import Terms
from shared.errors import DomainError, Reason
from shared.rules.heartbeats import DRIFT
from shared.rules.machine_terms import ProcessLeasing
from shared.rules.seats import cap

LIMIT = "max_processes"


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it is stored. `user_id` is whose machine it was when it started."""

    process_id: str
    machine_id: str
    license_id: str
    user_id: str | None
    name: str
    started_at: datetime
    last_heartbeat_at: datetime

    def deadline(self, interval: timedelta) -> datetime:
        """When it is dead unless it is heard of before, in UTC."""
        return self.last_heartbeat_at.astimezone(UTC) + interval + DRIFT

    def is_dead(self, interval: timedelta, now: datetime) -> bool:
        """Whether it was not heard of in time; a process is dead at its deadline."""
        return now >= self.deadline(interval)


@dataclass(frozen=True, slots=True)
class Among:
    """Which processes a limit counts together: all of a license, narrowed to a machine or a user where one is named."""

    license_id: str
    machine_id: str | None = None
    user_id: str | None = None


class NoPlaceError(DomainError):
    """MACHINE_LIMIT_EXCEEDED, with what the event of it tells."""

    def __init__(self, machine: Machine, allowed: int, processes: int) -> None:
        refusal = refuse_full(machine.license_id, LIMIT, allowed)
        super().__init__(refusal.reason, refusal.message, metadata=refusal.metadata)
        self.machine = machine
        self.allowed = allowed
        self.processes = processes


def heard_since(interval: timedelta, now: datetime) -> datetime:
    """A process that lives at `now` was heard of later than this."""
    return now - interval - DRIFT


def most(terms: Terms) -> int | None:
    """How many processes may be, overage and all, of those that the policy counts together; None for any number."""
    return cap(terms.limit(LIMIT), terms.overage_strategy)


def among(terms: Terms, machine: Machine) -> Among:
    """Those that are counted together with the processes of a machine. POLICY_INCOMPATIBLE where they are counted per user, and
    the machine has none."""
    match terms.process_leasing:
        case ProcessLeasing.PER_MACHINE:
            return Among(terms.license_id, machine_id=machine.machine_id)
        case ProcessLeasing.PER_LICENSE:
            return Among(terms.license_id)
        case ProcessLeasing.PER_USER:
            if machine.user_id is None:
                raise DomainError(
                    Reason.POLICY_INCOMPATIBLE,
                    "the policy counts processes per user, and the machine has none: name one by its `user_id`",
                    metadata={"policyId": terms.policy_id},
                )
            return Among(terms.license_id, user_id=machine.user_id)
        case _:
            assert_never(terms.process_leasing)
