"""A machine leases a seat of a floating license, or leases the one that it has anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from services.machine import store, wait_store
from services.machine.commands.take_seat import NewMachine, NoSeatError, come_to_seats, leased, rebound, take_seat
from services.machine.events import machine_event, queued_event
from services.machine.model import Machine, refuse_offline, touched
from services.machine.seats import within
from services.machine.terms import Terms
from services.machine.wait_store import Place
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason
from shared.facts.machines import SeatsValue
from shared.rules.machine_terms import SeatAcquire


@dataclass(frozen=True, slots=True)
class Acquired:
    """The machine with its lease, what it was leased under, and what became of the seats."""

    machine: Machine
    terms: Terms
    seats: SeatsValue
    taken_over: bool
    overage: bool
    evicted: Sequence[Machine]


@dataclass(frozen=True, slots=True)
class Queued:
    """A machine that waits for a seat."""

    place: Place
    seats: SeatsValue
    terms: Terms


async def acquire_seat(
    tx: Transaction, *, actor: str, license_id: str, wanted: NewMachine, ttl: timedelta
) -> Acquired | Queued:
    """LICENSE_NOT_FOUND, CUSTOMER_NOT_FOUND, POLICY_INCOMPATIBLE, CUSTOMER_BANNED, STATE_TRANSITION_INVALID,
    MACHINE_LIMIT_EXCEEDED, FINGERPRINT_TAKEN, FIELD_INVALID; FINGERPRINT_TAKEN by the record's own keys.

    A machine that has a seat keeps it, activated or leased: whoever asks is its latest process, and the earlier
    ones have lost it.
    """
    scene = await come_to_seats(tx, actor, license_id, wanted.identity, "lease")
    terms, known, seats = scene.terms, scene.known, scene.seats
    if not terms.floating:
        raise DomainError(
            Reason.POLICY_INCOMPATIBLE,
            "the license is not floating: its machines are activated, and not leased",
            metadata={"policyId": terms.policy_id},
        )
    if known is not None and scene.has_seat(tx):
        refuse_offline(known, tx.now)
        known = await rebound(tx, known, wanted.identity, terms) or known
        again = touched(await leased(tx, known, terms, seats, ttl), tx.now)
        await store.update_machine(tx, again)
        await emit(tx, machine_event("seat.granted", again, actor))
        limit = terms.limit("max_machines")
        return Acquired(again, terms, seats, True, limit is not None and seats.machines > limit, ())
    hashes = wanted.identity.identity_hashes
    try:
        taken = await take_seat(tx, actor=actor, wanted=wanted, scene=scene, event="seat.granted", ttl=ttl)
    except NoSeatError as refusal:
        if terms.seat_acquire is not SeatAcquire.QUEUE or refusal.metadata["limit"] != "max_machines":
            raise
        return Queued(await _queued(tx, actor, terms, wanted), seats, terms)
    await wait_store.leave(tx, license_id, hashes)
    return Acquired(taken.machine, terms, taken.seats, False, taken.overage, taken.evicted)


async def queue_up(tx: Transaction, actor: str, license_id: str, wanted: NewMachine) -> None:
    """A place for a machine that has no seat, where the license's policy has a queue. Refuses as `acquire_seat` does."""
    scene = await come_to_seats(tx, actor, license_id, wanted.identity, "lease")
    queues = scene.terms.floating and scene.terms.seat_acquire is SeatAcquire.QUEUE
    if queues and not (scene.known is not None and scene.has_seat(tx)):
        await _queued(tx, actor, scene.terms, wanted)


async def _queued(tx: Transaction, actor: str, terms: Terms, wanted: NewMachine) -> Place:
    hashes, user_id = wanted.identity.identity_hashes, wanted.user_id
    place = await wait_store.queue(tx, terms.license_id, hashes, user_id, within(terms, user_id))
    if place.is_new:
        await emit(tx, queued_event(terms.license_id, place, user_id, actor))
    return place
