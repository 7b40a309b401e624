"""The seat of a machine passes to another one, which has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from services.machine import seat_store, store, terms_store
from services.machine.commands.deactivate_machine import refuse_too_many
from services.machine.commands.find_machine import find_machine
from services.machine.commands.take_seat import NewMachine, machine_of
from services.machine.commands.tell_death import tell_death
from services.machine.events import machine_event
from services.machine.identities import recognised, taken
from services.machine.model import Action, DeactivationReason, Machine, deactivated, refuse_unless_allowed
from services.machine.terms import Terms, refuse_unusable
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason, not_found
from shared.rules.machine_terms import MachineUniqueness


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is asked. `by_holder` is counted, and needs the policy's consent."""

    machine_id: str
    etag: str
    reason: str
    by_holder: bool
    wanted: NewMachine


async def transfer_machine(
    tx: Transaction, *, actor: str, asked: Transfer, count: Callable[[], None]
) -> tuple[Machine, Terms]:
    """The machine that has the seat now. `count` is called, and may refuse, before another is looked for. MACHINE_NOT_FOUND,
    LICENSE_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID, CUSTOMER_BANNED, FINGERPRINT_TAKEN, POLICY_INCOMPATIBLE,
    TRANSFER_LIMIT_EXCEEDED."""
    before = await store.get_machine(tx, asked.machine_id)
    terms = None if before is None else await terms_store.terms_of(tx, before.license_id)
    if terms is not None and terms.machine_uniqueness is not MachineUniqueness.UNIQUE_PER_LICENSE:
        await store.hold_scope(tx, terms.scope_of(terms.machine_uniqueness, tx.tenant.account_id, ""))
    found, terms = await find_machine(tx, asked.machine_id, asked.etag)
    if terms is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, found.license_id)
    refuse_unless_allowed(found, Action.TRANSFER, tx.now, terms)
    seats = await seat_store.get_seats(tx, found.license_id)
    refuse_unusable(terms, "transfer", tx.now, seats.first_activated_at)
    if asked.by_holder:
        if not terms.allow_machine_transfer:
            raise DomainError(
                Reason.POLICY_INCOMPATIBLE,
                "the policy does not let who holds a license pass its machines' seats on",
                metadata={"policyId": terms.policy_id},
            )
        await refuse_too_many(tx, terms)
    count()
    scope = terms.scope_of(terms.machine_uniqueness, tx.tenant.account_id, "")
    known = await store.known_by(tx, scope, terms.license_id, asked.wanted.identity.hashes)
    if recognised(asked.wanted.identity, terms.machine_matching, known, terms.license_id) is not None:
        raise taken("identity")
    found = await tell_death(tx, actor, found, terms)
    gone = deactivated(found, Action.TRANSFER, DeactivationReason.TRANSFERRED, tx.now, terms)
    made = await machine_of(tx, asked.wanted, terms)
    made = replace(
        made, user_id=found.user_id, cores=found.cores, memory_bytes=found.memory_bytes, disk_bytes=found.disk_bytes,
        labels=found.labels, metadata=found.metadata,
    )  # fmt: skip
    await store.update_machine(tx, gone)
    await store.insert_machine(tx, made, made.machine_id)
    await emit(tx, machine_event("machine.deactivated", gone, actor, asked.reason))
    await emit(tx, machine_event("machine.transferred", made, actor, asked.reason))
    return made, terms
