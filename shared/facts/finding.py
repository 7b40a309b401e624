"""Finds the machines that a caller may mean, among the facts that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.facts.customers import CustomerValue
from shared.facts.looking import UnknownFactError, value_of
from shared.facts.machines import (
    MOST_MET,
    ComponentsValue,
    FingerprintValue,
    Found,
    Machine,
    MachineAsked,
    MachineTerms,
    MachineValue,
)
from shared.freshness.reader import View
from shared.rules.fingerprints import MatchingRule, matching_machines
from shared.rules.heartbeats import HeartbeatStatus


def find(view: View, prefix: str, license_id: str, terms: MachineTerms, asked: MachineAsked) -> Found:
    """The machines that a caller may mean. UnknownFactError where one is not known, or not known to be dead for sure."""
    among = _Among(view, prefix, license_id, terms, asked.components is not None)
    named = _machine(among, asked.machine_id) if asked.machine_id else None
    met: list[Machine] = []
    if asked.fingerprints:
        holders = [
            {one for hashed in hashes for one in _holders(among, hashed)} for hashes in asked.fingerprints.values()
        ]
        for machine_id in matching_machines(MatchingRule(terms.machine_matching), holders)[:MOST_MET]:
            machine = _machine(among, machine_id)
            if machine is not None:
                met.append(machine)
    return Found(named, tuple(met))


@dataclass(frozen=True, slots=True)
class _Among:
    """The machines of one license."""

    view: View
    prefix: str
    license_id: str
    terms: MachineTerms
    with_parts: bool


def fingerprint_key(prefix: str, license_id: str, hashed: bytes) -> str:
    """The key of the fact of a fingerprint."""
    return f"fingerprint:{prefix}{license_id}/\\x{hashed.hex()}"


def _holders(among: _Among, hashed: bytes) -> Sequence[str]:
    value = value_of(among.view, fingerprint_key(among.prefix, among.license_id, hashed), FingerprintValue)
    return () if value is None else value.machine_ids


def _machine(among: _Among, machine_id: str) -> Machine | None:
    """None for one that has no seat of this license."""
    view, prefix = among.view, among.prefix
    value = value_of(view, f"machine:{prefix}{machine_id}", MachineValue)
    if value is None or value.deactivated or value.license_id != among.license_id:
        return None
    due, lease_end = value.due(among.terms), value.lease_end
    for at in (due, lease_end):
        if at is not None and at <= view.now and (value.passed is None or value.passed < at):
            raise UnknownFactError  # it may have been heard of since it was read
    parts = value_of(view, f"component:{prefix}{machine_id}", ComponentsValue) if among.with_parts else None
    return Machine(
        machine_id=machine_id,
        user_id=value.user_id,
        user=None if value.user_id is None else value_of(view, f"customer:{prefix}{value.user_id}", CustomerValue),
        heartbeat_status=HeartbeatStatus(value.heartbeat_status),
        heartbeat_from=value.heartbeat_from,
        died_at=value.died_at,
        offline_until=value.offline_until,
        last_heartbeat_at=value.last_heartbeat_at,
        deadline=due,
        lease_expires_at=lease_end,
        components=frozenset() if parts is None else frozenset(hashed for _, hashed in parts.components),
    )
