"""How a machine comes to a seat of a license: the way that activations and leases have in common.

What is unique in more than the license is looked for under a lock of its own, before the seats: all take them so. Whoever is
at the seats first frees those whose leases are over, so that no seat waits for anybody to come and free it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from services.machine import seat_store, store, terms_store, wait_store
from services.machine.commands.tell_death import tell_death
from services.machine.events import gone_event, machine_event
from services.machine.identities import Identity, recognised
from services.machine.leases import lease_end
from services.machine.model import (
    Action,
    DeactivationReason,
    IdentityKind,
    Machine,
    State,
    deactivated,
    ended,
    first_heartbeat,
    refuse_unless_allowed,
    touched,
)
from services.machine.seats import behind, evicted, exceeded, overage, refuse_full, refuse_nobody, taken, taking, within
from services.machine.terms import Terms, refuse_unusable
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason, not_found
from shared.facts.machines import SeatsValue
from shared.ids import Prefix, new_id
from shared.rules.heartbeats import HeartbeatStatus
from shared.rules.machine_terms import MachineLeasing, MachineUniqueness, SeatAcquire


@dataclass(frozen=True, slots=True)
class NewMachine:
    """What a machine says of itself; `components` are keyed hashes by name."""

    identity: Identity
    external_id: str | None = None
    display_name: str = ""
    hostname: str = ""
    platform: str = ""
    ip: str = ""
    cores: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    user_id: str | None = None
    components: Mapping[str, bytes] | None = None
    labels: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What somebody finds who has come to the seats of a license, and holds them. `known` is the machine itself where it has a
    seat already; it may be dead."""

    terms: Terms
    seats: SeatsValue
    known: Machine | None

    def has_seat(self, tx: Transaction) -> bool:
        """Whether the machine has a seat, and need not take one."""
        return self.known is not None and self.known.state_at(tx.now, self.terms) in {State.NOT_STARTED, State.ALIVE}


@dataclass(frozen=True, slots=True)
class Taken:
    """The machine on its seat, and what became of the others."""

    machine: Machine
    seats: SeatsValue
    overage: bool
    evicted: Sequence[Machine]


class NoSeatError(DomainError):
    """MACHINE_LIMIT_EXCEEDED, with what the event of it tells."""

    def __init__(self, refusal: DomainError, seats: SeatsValue) -> None:
        super().__init__(refusal.reason, refusal.message, metadata=refusal.metadata)
        self.seats = seats


async def come_to_seats(tx: Transaction, actor: str, license_id: str, identity: Identity, action: str) -> Scene:
    """LICENSE_NOT_FOUND, CUSTOMER_BANNED, STATE_TRANSITION_INVALID, FINGERPRINT_TAKEN."""
    terms = await _terms(tx, license_id)
    scope = terms.scope_of(terms.machine_uniqueness, tx.tenant.account_id, "")
    if terms.machine_uniqueness is not MachineUniqueness.UNIQUE_PER_LICENSE:
        await store.hold_scope(tx, scope)
    seats = await seat_store.lock_seats(tx, license_id)
    terms = await _terms(tx, license_id)  # as it is now that nobody else is at the seats
    refuse_unusable(terms, action, tx.now, seats.first_activated_at)
    had_machines = seats.first_activated_at is not None
    over = await free_leases(tx, actor, await store.hold_over(tx, license_id)) if had_machines else 0
    found = await store.known_by(tx, scope, license_id, identity.hashes)
    for one in [one for one in found if one.lease_over(tx.now)]:  # of another license, or one that was one too many
        held = await store.lock_machine(tx, one.machine_id)
        over += await free_leases(tx, actor, [held] if held is not None and held.lease_over(tx.now) else ())
    if over:
        seats = await seat_store.get_seats(tx, license_id)
        found = await store.known_by(tx, scope, license_id, identity.hashes)
    known = recognised(identity, terms.machine_matching, found, license_id)
    if known is not None:
        known = await store.lock_machine(
            tx, known.machine_id
        )  # what beats and leases say of it stays as it is from now on
    return Scene(terms, seats, known)


async def free_leases(tx: Transaction, actor: str, over: Sequence[Machine]) -> int:
    """Frees the seats of machines whose leases are over; how many."""
    for machine in over:
        gone = ended(machine, DeactivationReason.LEASE_EXPIRED, tx.now)
        await store.update_machine(tx, gone)
        await emit(tx, gone_event(gone, actor, DeactivationReason.LEASE_EXPIRED.value))
    return len(over)


async def take_seat(
    tx: Transaction, *, actor: str, wanted: NewMachine, scene: Scene, event: str, ttl: timedelta | None = None
) -> Taken:
    """A seat for a machine that has none, or is dead; leased where there is a `ttl`. CUSTOMER_NOT_FOUND, MACHINE_LIMIT_EXCEEDED,
    FIELD_INVALID; EXTERNAL_ID_TAKEN and FINGERPRINT_TAKEN by the record's own keys."""
    terms, seats = scene.terms, scene.seats
    await _refuse_unknown_user(tx, wanted.user_id)
    refuse_nobody(terms, wanted.user_id)
    if scene.known is not None:
        await _replace_dead(tx, actor, await tell_death(tx, actor, scene.known, terms))
        seats = await seat_store.get_seats(tx, terms.license_id)
    machine = await machine_of(tx, wanted, terms, is_first=seats.first_activated_at is None)
    gone = await _make_room(tx, actor, machine, terms, seats, identity=wanted.identity)
    if gone:
        seats = await seat_store.get_seats(tx, terms.license_id)
    if ttl is not None:
        machine = await leased(tx, machine, terms, seats, ttl)
    then = taking(seats, machine, None, await _of_user(tx, machine))
    await store.insert_machine(
        tx, machine, terms.scope_of(terms.component_uniqueness, tx.tenant.account_id, machine.machine_id)
    )
    await emit(tx, machine_event(event, machine, actor))
    return Taken(machine, taken(seats, then, machine.activated_at), overage(terms, then), gone)


async def leased(tx: Transaction, machine: Machine, terms: Terms, seats: SeatsValue, ttl: timedelta) -> Machine:
    """With a lease of its own, later than all others of the license; it is a heartbeat too. For whoever holds the seats."""
    return replace(
        machine,
        heartbeat_status=HeartbeatStatus.ALIVE,
        heartbeat_from=tx.now if terms.require_heartbeat else machine.heartbeat_from,
        lease_epoch=await seat_store.next_epoch(tx, terms.license_id),
        lease_expires_at=lease_end(terms, seats.first_activated_at or tx.now, tx.now, ttl),
        last_heartbeat_at=tx.now,
    )


async def machine_of(tx: Transaction, wanted: NewMachine, terms: Terms, *, is_first: bool = False) -> Machine:
    """A new machine, from what it says of itself and what it lives under; `is_first` where its license never had one."""
    machine_id = new_id(Prefix.MACHINE)
    hashes = wanted.identity.identity_hashes
    before = 0 if is_first else await store.last_generation(tx, terms.license_id, hashes)
    status, begins = first_heartbeat(terms, tx.now)
    return Machine(
        machine_id=machine_id,
        external_id=wanted.external_id,
        license_id=terms.license_id,
        product_id=terms.product_id,
        policy_id=terms.policy_id,
        user_id=wanted.user_id,
        identity_kind=wanted.identity.kind,
        identity_hash=hashes[0],
        uniqueness_scope=terms.scope_of(terms.machine_uniqueness, tx.tenant.account_id, machine_id),
        generation=before + 1,
        display_name=wanted.display_name,
        hostname=wanted.hostname,
        platform=wanted.platform,
        ip=wanted.ip,
        cores=wanted.cores,
        memory_bytes=wanted.memory_bytes,
        disk_bytes=wanted.disk_bytes,
        heartbeat_status=status,
        heartbeat_from=begins,
        died_at=None,
        offline_until=None,
        lease_epoch=None,
        activated_at=tx.now,
        deactivated_at=None,
        deactivation_reason=None,
        labels=wanted.labels or {},
        metadata=wanted.metadata or {},
        revision=1,
        updated_at=tx.now,
        fingerprints=wanted.identity.stored,
        components=wanted.components or {},
    )


async def rebound(tx: Transaction, known: Machine, identity: Identity, terms: Terms) -> Machine | None:
    """The machine, known from now on by what it has just shown; None where that is what it was known by."""
    stored = dict(identity.stored)
    if identity.kind is not IdentityKind.FINGERPRINT_SET or stored == dict(known.fingerprints):
        return None
    refuse_unless_allowed(known, Action.REBIND, tx.now, terms)
    changed = touched(replace(known, fingerprints=stored, identity_hash=identity.identity_hashes[0]), tx.now)
    await store.update_machine(tx, changed)
    await store.set_fingerprints(tx, changed)
    return changed


async def _replace_dead(tx: Transaction, actor: str, dead: Machine) -> None:
    """A dead machine makes room for its own next activation."""
    gone = ended(dead, DeactivationReason.REPLACED, tx.now)
    await store.update_machine(tx, gone)
    await emit(tx, gone_event(gone, actor))


async def _make_room(
    tx: Transaction, actor: str, machine: Machine, terms: Terms, seats: SeatsValue, *, identity: Identity
) -> Sequence[Machine]:
    """Whoever has lost its seat for the machine. MACHINE_LIMIT_EXCEEDED. Where there is a queue, the free seats are those of who
    waits there first."""
    then = taking(seats, machine, None, await _of_user(tx, machine))
    if terms.seat_acquire is SeatAcquire.QUEUE:
        hashes = identity.identity_hashes
        then = behind(then, await wait_store.ahead_of(tx, terms.license_id, hashes, within(terms, machine.user_id)))
    full = exceeded(terms, then, seats)
    if full is None:
        return ()
    refusal = NoSeatError(refuse_full(terms.license_id, *full), seats)
    if full[0] != "max_machines":
        raise refusal
    live = await store.live_of_license(tx, terms.license_id)
    if terms.machine_leasing is MachineLeasing.PER_USER:
        live = [one for one in live if one.user_id == machine.user_id]
    loser = evicted(terms, live, tx.now)
    if loser is None:
        raise refusal
    gone = deactivated(loser, Action.DEACTIVATE, DeactivationReason.EVICTED, tx.now, terms)
    await store.update_machine(tx, gone)
    await emit(tx, gone_event(gone, actor))
    after = await seat_store.get_seats(tx, terms.license_id)
    full = exceeded(terms, taking(after, machine, None, await _of_user(tx, machine)), after)
    if full is not None:
        raise NoSeatError(refuse_full(terms.license_id, *full), seats)
    return (gone,)


async def _of_user(tx: Transaction, machine: Machine) -> int:
    if machine.user_id is None:
        return 0
    return await seat_store.count_of_user(tx, machine.license_id, machine.user_id)


async def _terms(tx: Transaction, license_id: str) -> Terms:
    terms = await terms_store.terms_of(tx, license_id)
    if terms is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
    return terms


async def _refuse_unknown_user(tx: Transaction, user_id: str | None) -> None:
    if user_id is not None and not await terms_store.is_customer(tx, user_id):
        raise not_found(Reason.CUSTOMER_NOT_FOUND, user_id)
