"""What the checks of machines looked at, and what to do about each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.license import machines
from services.license.asked import Asked
from services.license.codes import Code
from services.license.decision import Check
from services.license.facts import Facts
from shared.facts.machines import Machine

HINTS: Final[Mapping[str, str]] = {
    "machine_named": "Name the machine's id in the request, or take require_machine_scope from the policy.",
    "machine_there": "Activate a machine.",
    "machines_there": "Activate a machine, or acquire a seat.",
    "machine": "Ask for a machine of the license that is not deactivated, or activate it again.",
    "fingerprint_shown": "Show the machine's fingerprint in the request, or take require_fingerprint from the policy.",
    "fingerprint_named": "Show a fingerprint, or leave the field out.",
    "fingerprint": "Activate the machine, show it as it was activated, or ask less of machine_matching.",
    "heartbeat_started": "Let the machine send a heartbeat.",
    "heartbeat": "Let the machine send a heartbeat while it may come back; else activate it again.",
    "components_shown": "Name the machine's components in the request, or take require_components_scope from the policy.",
    "components_named": "Name a component, or leave the field out.",
    "components": "Name the components as they were activated, or ask less of component_matching.",
    "limit_of_users": "Deactivate machines of some users, raise max_users, or override it.",
    "limit_of_machines": "Deactivate machines, raise max_machines, or override it.",
    "limit_of_cores": "Deactivate machines, raise max_cores, or override it.",
    "limit_of_memory_bytes": "Deactivate machines, raise max_memory_bytes, or override it.",
    "limit_of_disk_bytes": "Deactivate machines, raise max_disk_bytes, or override it.",
    "limit_of_processes": "End processes, raise max_processes, or override it.",
}
"""What to do about each check of machines that does not pass, by its name."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the checks see."""

    facts: Facts
    asked: Asked
    now: datetime

    @property
    def named(self) -> str:
        return "" if self.asked.machine is None else self.asked.machine.machine_id

    @property
    def shown(self) -> int | None:
        wanted = self.asked.machine
        return None if wanted is None or wanted.fingerprints is None else len(wanted.fingerprints)

    @property
    def parts(self) -> int | None:
        wanted = self.asked.machine
        return None if wanted is None or wanted.components is None else len(wanted.components)

    @property
    def machine(self) -> Machine | None:
        return machines.machine_of(self.facts, self.asked, self.now)

    @property
    def met(self) -> Sequence[Machine]:
        return () if self.facts.found is None else self.facts.found.met


def machine_inputs(check: Check, facts: Facts, asked: Asked, now: datetime) -> Mapping[str, object]:
    """What one of them looked at. No fingerprint is among it."""
    if check.code in machines.LIMITS:
        return _of_limit(facts, check.code)
    return _READS[check.name](_Seen(facts, asked, now))


def _seats(seen: _Seen) -> Mapping[str, object]:
    seats = seen.facts.seats
    return {"machines": None if seats is None else seats.machines, "floating": seen.facts.machines.floating}


def _fingerprint(seen: _Seen) -> Mapping[str, object]:
    return {
        "shown": seen.shown,
        "machine_matching": seen.facts.machines.machine_matching,
        "asked": seen.named,
        "found": ", ".join(one.machine_id for one in seen.met),
    }


def _heartbeat(seen: _Seen) -> Mapping[str, object]:
    terms, machine = seen.facts.machines, seen.machine
    required = {"require_heartbeat": terms.require_heartbeat, "heartbeat_basis": terms.heartbeat_basis}
    if machine is None:
        return required | {"found": None}
    return required | {
        "found": machine.machine_id,
        "heartbeat_status": machines.heartbeat_status(machine, seen.now).value,
        "heartbeat_interval": terms.heartbeat_interval,
        "heartbeat_from": machine.heartbeat_from,
        "last_heartbeat_time": machine.last_heartbeat_at,
        "offline_until": machine.offline_until,
        "heartbeat_deadline": machine.deadline,
        "died_at": machine.died_at,
        "lease_expire_time": machine.lease_expires_at,
    }


def _components(seen: _Seen) -> Mapping[str, object]:
    machine = seen.machine
    return {
        "named": seen.parts,
        "component_matching": seen.facts.machines.component_matching,
        "found": None if machine is None else machine.machine_id,
        "known": None if machine is None or seen.parts is None else len(machine.components),
    }


def _of_limit(facts: Facts, code: Code) -> Mapping[str, object]:
    taken, name, terms = machines.taken(facts, code), machines.LIMITS[code], facts.machines
    inputs: dict[str, object] = {
        "strict": terms.strict,
        "taken": None if facts.seats is None else taken.taken,
        f"max_{name}": getattr(terms.limits, name),
        f"max_{name}_override": getattr(facts.overrides, name),
        "counts": taken.limit,
        "overage_strategy": terms.overage_strategy,
        "most": taken.most,
    }
    if name == "machines":
        inputs["machine_leasing"] = terms.machine_leasing
    elif name == "processes":
        inputs["process_leasing"] = terms.process_leasing
    return inputs


_READS: Final[Mapping[str, Callable[[_Seen], Mapping[str, object]]]] = {
    "machine_named": lambda seen: {
        "require_machine_scope": seen.facts.machines.require_machine_scope, "asked": seen.named,
    },
    "machine_there": _seats,
    "machines_there": _seats,
    "machine": lambda seen: {
        "asked": seen.named, "found": seen.facts.found is not None and seen.facts.found.named is not None,
    },
    "fingerprint_shown": lambda seen: {
        "require_fingerprint": seen.facts.machines.require_fingerprint, "shown": seen.shown,
    },
    "fingerprint_named": lambda seen: {"shown": seen.shown},
    "fingerprint": _fingerprint,
    "heartbeat_started": _heartbeat,
    "heartbeat": _heartbeat,
    "components_shown": lambda seen: {
        "require_components_scope": seen.facts.machines.require_components_scope, "named": seen.parts,
    },
    "components_named": lambda seen: {"named": seen.parts},
    "components": _components,
}  # fmt: skip
"""What each reads, by its name; the limits apart."""
