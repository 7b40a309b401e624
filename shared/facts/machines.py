"""What is known of machines: the facts of each, what a policy says of them, and the machines that a decision looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

from shared.facts.customers import CustomerValue
from shared.rules.expiry import FROM_FIRST_ACTIVATION
from shared.rules.heartbeats import HeartbeatStatus, deadline

MOST_MET: Final = 16
"""Machines that are looked at where a set of fingerprints is met by many: those with most in common."""
NO_HASHES: Final[Sequence[bytes]] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machines of a license may be and have in all; None where there is no limit."""

    machines: int | None = None
    users: int | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    processes: int | None = None


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class MachineTerms:
    """What a policy says of machines, by the names of the contract."""

    limits: Limits
    strict: bool
    overage_strategy: str
    floating: bool
    require_fingerprint: bool
    require_machine_scope: bool
    require_components_scope: bool
    require_heartbeat: bool
    heartbeat_interval: timedelta
    heartbeat_basis: str
    machine_matching: str
    component_matching: str
    machine_leasing: str
    process_leasing: str


@dataclass(frozen=True, slots=True)
class SeatsValue:
    """What the machines of a license are and have in all. Processes are counted too."""

    machines: int
    users: int
    cores: int
    memory_bytes: int
    disk_bytes: int
    processes: int
    first_activated_at: datetime | None


NO_SEATS: Final = SeatsValue(0, 0, 0, 0, 0, 0, None)
"""Of a license that never had a machine."""


@dataclass(frozen=True, slots=True)
class FingerprintValue:
    """The machines of one license that have a fingerprint."""

    machine_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class MachineValue:
    """A machine. What heartbeats and renewals change of it can only be later by now, but where the rest has changed too.

    `passed` is the latest of its deadlines that was over when it was read: at none until then can the machine have said
    anything in time. None where none was over.
    """

    license_id: str
    user_id: str | None
    deactivated: bool
    heartbeat_status: str
    heartbeat_from: datetime | None
    died_at: datetime | None
    offline_until: datetime | None
    lease_epoch: int | None
    last_heartbeat_at: datetime | None
    lease_expires_at: datetime | None
    passed: datetime | None

    def due(self, terms: MachineTerms) -> datetime | None:
        """When it is dead by its policy unless it is heard of before; None for never."""
        return deadline(
            required=terms.require_heartbeat,
            interval=terms.heartbeat_interval,
            heartbeat_from=self.heartbeat_from,
            last_heartbeat_at=self.last_heartbeat_at,
            offline_until=self.offline_until,
        )

    @property
    def lease_end(self) -> datetime | None:
        """When its seat is free unless it is renewed before; None for never."""
        return None if self.lease_epoch is None else self.lease_expires_at

    def read_at(self, at: datetime, terms: MachineTerms) -> MachineValue:
        """The same, with what was over at the time at which it was read."""
        over = [end for end in (self.due(terms), self.lease_end) if end is not None and end <= at]
        return replace(self, passed=max(over)) if over else self


@dataclass(frozen=True, slots=True)
class ComponentsValue:
    """The parts of a machine: their names and hashes."""

    components: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class MachineAsked:
    """The machine that a caller names.

    Attributes:
        machine_id: Its id; empty where it is not named so.
        fingerprints: By name its hashes under each live version of the secret; None where it is not named so.
        components: The same of its parts; None where nothing is said of them.
    """

    machine_id: str = ""
    fingerprints: Mapping[str, Sequence[bytes]] | None = None
    components: Mapping[str, Sequence[bytes]] | None = None

    @property
    def is_named(self) -> bool:
        """Whether it is said which machine it is."""
        return self.machine_id != "" or self.fingerprints is not None

    @property
    def hashes(self) -> Sequence[bytes]:
        """All that a look-up must try."""
        if not self.fingerprints:
            return NO_HASHES
        return [one for hashes in self.fingerprints.values() for one in hashes]

    @property
    def mark(self) -> str:
        """Tells loads apart that look for different machines of one license."""
        return blake2b(b"".join((self.machine_id.encode(), *self.hashes)), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the license that holds its seat, as a decision sees it.

    `deadline` is when it is dead unless it is heard of before, `lease_expires_at` when its seat is free unless it is renewed;
    None for never. `components` are hashes.
    """

    machine_id: str
    user_id: str | None
    user: CustomerValue | None
    heartbeat_status: HeartbeatStatus
    heartbeat_from: datetime | None
    died_at: datetime | None
    offline_until: datetime | None
    last_heartbeat_at: datetime | None
    deadline: datetime | None
    lease_expires_at: datetime | None
    components: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Found:
    """The machines that a caller may mean: the one with the id, and those that have the fingerprints, most in common first."""

    named: Machine | None
    met: Sequence[Machine]


def needs_seats(terms: MachineTerms, overrides: Limits, expiration_basis: str, asked: MachineAsked | None) -> bool:
    """Whether a decision must know what a license's machines are in all; as the loads' own condition has it."""
    return (
        asked is not None
        or terms.require_fingerprint
        or terms.require_machine_scope
        or (terms.strict and (terms.limits != NO_LIMITS or overrides != NO_LIMITS))
        or expiration_basis == FROM_FIRST_ACTIVATION
    )
