"""What this service's events carry: the machine as it is after the change. No fingerprint, no secret."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from services.machine.model import DeactivationReason, Machine
from services.machine.processes import LIMIT, NoPlaceError, Process
from services.machine.wait_store import Place
from shared.db.outbox import SOURCE_API, Event
from shared.facts.machines import SeatsValue

_LEFT_OUT = frozenset({"identity_hash", "uniqueness_scope", "fingerprints", "components", "heartbeat_from"})

_LEASED: Final = {
    DeactivationReason.SELF: "seat.released",
    DeactivationReason.LEASE_EXPIRED: "seat.expired",
    DeactivationReason.EVICTED: "seat.evicted",
}


def event_data(machine: Machine) -> dict[str, Any]:
    """JSON: times as RFC 3339, fingerprints by their names alone."""
    plain = {
        field.name: _plain(getattr(machine, field.name)) for field in fields(machine) if field.name not in _LEFT_OUT
    }
    return {
        **plain,
        "fingerprint_names": sorted(name for name in machine.fingerprints if name),
        "component_names": sorted(machine.components),
    }


def machine_event(name: str, machine: Machine, actor: str, reason: str = "", source: str = SOURCE_API) -> Event:
    """What happened to a machine."""
    return Event(name, machine.machine_id, event_data(machine), actor, reason, source)


def gone_event(machine: Machine, actor: str, reason: str = "", source: str = SOURCE_API) -> Event:
    """How a machine lost its seat, by the name that goes with why; a seat that was leased has names of its own."""
    why = machine.deactivation_reason
    name = (
        "machine.deactivated" if machine.lease_epoch is None or why is None else _LEASED.get(why, "machine.deactivated")
    )
    return machine_event(name, machine, actor, reason, source)


def refusal_event(license_id: str, limit: str, allowed: int, seats: SeatsValue, actor: str) -> Event:
    """An activation that found no seat; it happened to the license."""
    data = {"license_id": license_id, "limit": limit, "allowed": allowed, "machines": seats.machines}
    return Event("machine.activation_rejected", license_id, data, actor)


def queued_event(license_id: str, place: Place, user_id: str | None, actor: str) -> Event:
    """A machine waits for a seat; it happened to the license."""
    data = {"license_id": license_id, "ticket_id": place.ticket_id, "position": place.ahead + 1, "user_id": user_id}
    return Event("seat.queued", license_id, data, actor)


def process_event(name: str, process: Process, actor: str, source: str = SOURCE_API) -> Event:
    """What happened to a process; it is told of its machine."""
    data = {field.name: _plain(getattr(process, field.name)) for field in fields(process)}
    return Event(name, process.machine_id, data, actor, source=source)


def no_place_event(refusal: NoPlaceError, actor: str) -> Event:
    """A process that found no place; it happened to the license."""
    machine = refusal.machine
    data = {
        "license_id": machine.license_id, "machine_id": machine.machine_id, "limit": LIMIT, "allowed": refusal.allowed,
        "processes": refusal.processes,
    }  # fmt: skip
    return Event("process.rejected", machine.license_id, data, actor)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
