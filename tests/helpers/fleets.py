"""Machines of licenses, and what the design says of them, written out a second time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil, floor
from typing import Protocol

from hypothesis import strategies as st

from services.license.asked import Asked
from shared.facts.machines import Limits, MachineAsked, MachineTerms, SeatsValue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
LAX = MachineTerms(
    limits=Limits(),
    strict=True,
    overage_strategy="NO_OVERAGE",
    floating=False,
    require_fingerprint=False,
    require_machine_scope=False,
    require_components_scope=False,
    require_heartbeat=False,
    heartbeat_interval=timedelta(minutes=10),
    heartbeat_basis="FROM_FIRST_PING",
    machine_matching="MATCH_ANY",
    component_matching="MATCH_ANY",
    machine_leasing="PER_LICENSE",
    process_leasing="PER_MACHINE",
)
"""A policy that says nothing of machines."""
PRINTS, PARTS, IDS = ("p1", "p2", "p3"), ("c1", "c2"), ("mach_1", "mach_2", "mach_3")
FACTORS = {
    "NO_OVERAGE": Fraction(1), "ALLOW_1_25X": Fraction(5, 4), "ALLOW_1_5X": Fraction(3, 2), "ALLOW_2X": Fraction(2),
}  # fmt: skip
LIMITS = {
    "TOO_MANY_USERS": "users", "MACHINE_LIMIT_EXCEEDED": "machines", "TOO_MANY_CORES": "cores",
    "TOO_MUCH_MEMORY": "memory_bytes", "TOO_MUCH_DISK": "disk_bytes", "TOO_MANY_PROCESSES": "processes",
}  # fmt: skip


@dataclass(frozen=True)
class Fellow:
    """A machine: what it is known by, who uses it, and when it was heard of."""

    machine_id: str
    prints: frozenset[str] = frozenset({"p1"})
    parts: frozenset[str] = frozenset()
    license_id: str = "lic_1"
    user: tuple[str, str | None, bytes | None] | None = None
    status: str = "ALIVE"
    began: datetime | None = None
    beat: datetime | None = None
    offline: datetime | None = None
    lease_end: datetime | None = None
    gone: bool = False


class Owner(Protocol):
    """What a license and its policy say."""

    @property
    def overridable(self) -> tuple[str, ...]: ...
    @property
    def machines(self) -> MachineTerms: ...
    @property
    def overrides(self) -> Limits: ...
    @property
    def seats(self) -> SeatsValue | None: ...
    @property
    def fleet(self) -> tuple[Fellow, ...]: ...


near = st.integers(-3, 3).map(lambda ticks: NOW + ticks * TICK)
heard = (
    st.none()
    | near.map(lambda at: at - timedelta(minutes=10, seconds=30))
    | near
    | near.map(lambda at: at - timedelta(days=1))
)
USERS = [None, ("cus_1", None, b"ada"), ("cus_2", "user-2", None)]
fellows = st.builds(
    Fellow,
    machine_id=st.sampled_from(IDS),
    prints=st.frozensets(st.sampled_from(PRINTS), min_size=1),
    parts=st.frozensets(st.sampled_from(PARTS)),
    license_id=st.sampled_from(["lic_1", "lic_1", "lic_1", "lic_2"]),
    user=st.sampled_from(USERS),
    status=st.sampled_from(["ALIVE", "ALIVE", "NOT_STARTED", "DEAD"]),
    began=heard,
    beat=heard,
    offline=heard,
    lease_end=st.sampled_from([None, None]) | near,
    gone=st.sampled_from([False, False, False, True]),
)
fleets = st.lists(fellows, max_size=3, unique_by=lambda one: one.machine_id).map(tuple)
few = st.sampled_from([None, None, 1, 2, 4])
limits = st.builds(Limits, few, few, few, few, few, few)
machine_terms = st.builds(
    MachineTerms,
    limits=limits | st.just(Limits()),
    strict=st.booleans(),
    overage_strategy=st.sampled_from([*FACTORS, "ALWAYS_ALLOW"]),
    floating=st.booleans(),
    require_fingerprint=st.booleans(),
    require_machine_scope=st.booleans(),
    require_components_scope=st.booleans(),
    require_heartbeat=st.booleans(),
    heartbeat_interval=st.just(timedelta(minutes=10)),
    heartbeat_basis=st.just("FROM_FIRST_PING"),
    machine_matching=st.sampled_from(["MATCH_ANY", "MATCH_TWO", "MATCH_MOST", "MATCH_ALL"]),
    component_matching=st.sampled_from(["MATCH_ANY", "MATCH_TWO", "MATCH_MOST", "MATCH_ALL"]),
    machine_leasing=st.sampled_from(["PER_LICENSE", "PER_USER"]),
    process_leasing=st.sampled_from(["PER_LICENSE", "PER_USER", "PER_MACHINE"]),
)
counts = st.integers(0, 9)
seats_values = st.none() | st.builds(SeatsValue, counts, counts, counts, counts, counts, counts, st.none())


def hashes(names: Sequence[str]) -> Mapping[str, Sequence[bytes]]:
    return {name: [name.encode()] for name in names}


named_sets = st.none() | st.lists(st.sampled_from(PRINTS), unique=True).map(hashes)
machines_asked = st.builds(
    MachineAsked,
    machine_id=st.sampled_from(["", "", "mach_1", "mach_9"]),
    fingerprints=named_sets,
    components=st.none() | st.lists(st.sampled_from([*PARTS, "c9"]), unique=True).map(hashes),
).filter(lambda one: one != MachineAsked())


def met(rule: str, shown: int, common: int) -> bool:
    needed = {"MATCH_ANY": 1, "MATCH_TWO": min(2, shown), "MATCH_MOST": ceil(shown / 2), "MATCH_ALL": shown}[rule]
    return shown > 0 and common >= needed


def due(terms: MachineTerms, one: Fellow) -> datetime | None:
    if not terms.require_heartbeat or one.began is None:
        return None
    return max(at for at in (one.began, one.beat, one.offline) if at) + terms.heartbeat_interval + timedelta(seconds=30)


def is_dead(terms: MachineTerms, one: Fellow, now: datetime) -> bool:
    deadline = due(terms, one)
    missed = terms.require_heartbeat and (one.status == "DEAD" or (deadline is not None and deadline <= now))
    return missed or (one.lease_end is not None and one.lease_end <= now)


def is_silent(terms: MachineTerms, one: Fellow, now: datetime) -> bool:
    return terms.require_heartbeat and one.status == "NOT_STARTED" and not is_dead(terms, one, now)


def known(owner: Owner) -> list[Fellow]:
    return [one for one in owner.fleet if one.license_id == "lic_1" and not one.gone]


def named_of(owner: Owner, wanted: Asked) -> Fellow | None:
    return next((one for one in known(owner) if wanted.machine and one.machine_id == wanted.machine.machine_id), None)


def fitting(owner: Owner, wanted: Asked) -> list[Fellow]:
    """Those that the fingerprints fit, the best first."""
    shown = set((wanted.machine.fingerprints if wanted.machine else None) or {})
    fit = [one for one in known(owner) if met(owner.machines.machine_matching, len(shown), len(shown & one.prints))]
    return sorted(fit, key=lambda one: (-len(shown & one.prints), one.machine_id))


def meant(owner: Owner, wanted: Asked, now: datetime) -> Fellow | None:
    if wanted.machine is None:
        return None
    if wanted.machine.machine_id:
        return named_of(owner, wanted)
    fit, terms = fitting(owner, wanted), owner.machines
    heard_of = [one for one in fit if not is_dead(terms, one, now) and not is_silent(terms, one, now)]
    return (heard_of or fit or [None])[0]


def overrun(owner: Owner, code: str) -> str:
    """How a limit stands: within, over (and allowed), or refused."""
    name, terms, seats = LIMITS[code], owner.machines, owner.seats
    own = getattr(owner.overrides, name) if f"MAX_{name.upper()}" in owner.overridable else None
    limit = own or getattr(terms.limits, name)
    if limit is None or seats is None or not terms.strict:
        return "within"
    if code == "MACHINE_LIMIT_EXCEEDED" and terms.machine_leasing == "PER_USER":
        each = max(1, seats.users)
    elif code == "TOO_MANY_PROCESSES" and terms.process_leasing != "PER_LICENSE":
        each = max(1, seats.users if terms.process_leasing == "PER_USER" else seats.machines)
    else:
        each = 1
    taken, factor = getattr(seats, name), FACTORS.get(terms.overage_strategy)
    if taken <= limit * each:
        return "within"
    return "over" if factor is None or taken <= floor(limit * factor) * each else "refused"


def machine_codes(owner: Owner, wanted: Asked, now: datetime) -> Iterator[str]:
    """What is wrong with a license by its machines, worst first."""
    terms, seats, asked = owner.machines, owner.seats, wanted.machine
    machine, named = meant(owner, wanted, now), named_of(owner, wanted)
    shown = None if asked is None else asked.fingerprints
    parts = None if asked is None else asked.components
    fit = [one.machine_id for one in fitting(owner, wanted)]
    has_id = asked is not None and asked.machine_id != ""
    wants_one = has_id or shown is not None or terms.require_machine_scope or terms.require_fingerprint
    if terms.require_machine_scope and not has_id:
        yield "MACHINE_SCOPE_REQUIRED"
    if wants_one and (seats is None or seats.machines == 0):
        yield "NO_MACHINES" if terms.floating else "NO_MACHINE"
    if has_id and named is None:
        yield "MACHINE_SCOPE_MISMATCH"
    if terms.require_fingerprint and shown is None:
        yield "FINGERPRINT_SCOPE_REQUIRED"
    if shown == {}:
        yield "FINGERPRINT_SCOPE_EMPTY"
    if shown and (named.machine_id not in fit if named else not fit):
        yield "FINGERPRINT_NOT_FOUND"
    if machine and is_silent(terms, machine, now):
        yield "HEARTBEAT_NOT_STARTED"
    if machine and is_dead(terms, machine, now):
        yield "HEARTBEAT_DEAD"
    if terms.require_components_scope and parts is None:
        yield "COMPONENTS_SCOPE_REQUIRED"
    if parts == {}:
        yield "COMPONENTS_SCOPE_EMPTY"
    if machine and parts and not met(terms.component_matching, len(parts), len(set(parts) & machine.parts)):
        yield "COMPONENTS_SCOPE_MISMATCH"
    yield from (code for code in LIMITS if overrun(owner, code) != "within")


def machine_moments(owner: Owner, wanted: Asked) -> set[datetime]:
    """When something of the machines that may be meant changes by time alone."""
    named = named_of(owner, wanted)
    those = [*fitting(owner, wanted), *([named] if named else [])]
    ends = {end for one in those for end in (due(owner.machines, one), one.lease_end)}
    return {end for end in ends if end is not None}
