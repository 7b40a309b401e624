"""A machine takes a seat of a license, or is found to have one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.machine.commands.take_seat import NewMachine, come_to_seats, rebound, take_seat
from services.machine.events import machine_event
from services.machine.model import Machine
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.facts.machines import SeatsValue


@dataclass(frozen=True, slots=True)
class Activated:
    """The machine, what it was activated under, and what became of the seats."""

    machine: Machine
    terms: Terms
    seats: SeatsValue
    already_active: bool
    overage: bool
    evicted: Sequence[Machine]


async def activate_machine(
    tx: Transaction, *, actor: str, license_id: str, wanted: NewMachine, count: Callable[[], None]
) -> Activated:
    """`count` is called, and may refuse, where the machine has no seat of its own, not even a dead one: it is to get one, or
    is to be told that there is none. LICENSE_NOT_FOUND, CUSTOMER_NOT_FOUND, CUSTOMER_BANNED, STATE_TRANSITION_INVALID,
    MACHINE_LIMIT_EXCEEDED, FINGERPRINT_TAKEN, FIELD_INVALID; EXTERNAL_ID_TAKEN and FINGERPRINT_TAKEN by the record's own keys."""
    scene = await come_to_seats(tx, actor, license_id, wanted.identity, "activate")
    terms, known = scene.terms, scene.known
    if known is not None and scene.has_seat(tx):
        changed = await rebound(tx, known, wanted.identity, terms)
        if changed is not None:
            await emit(tx, machine_event("machine.updated", changed, actor))
        limit = terms.limit("max_machines")
        over = limit is not None and scene.seats.machines > limit
        return Activated(changed or known, terms, scene.seats, True, over, ())
    if known is None:
        count()
    taken = await take_seat(tx, actor=actor, wanted=wanted, scene=scene, event="machine.activated")
    return Activated(taken.machine, terms, taken.seats, False, taken.overage, taken.evicted)
