"""A leased seat is taken from the machine that has it, by the vendor."""

from __future__ import annotations

from services.machine import store
from services.machine.commands.find_machine import find_machine
from services.machine.events import gone_event
from services.machine.model import Action, DeactivationReason, Machine, deactivated
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason


async def evict_seat(
    tx: Transaction, *, actor: str, machine_id: str, etag: str, reason: str
) -> tuple[Machine, Terms | None]:
    """MACHINE_NOT_FOUND, ETAG_MISMATCH; STATE_TRANSITION_INVALID for a machine without a lease, or whose lease is over."""
    found, terms = await find_machine(tx, machine_id, etag)
    gone = deactivated(found, Action.DEACTIVATE, DeactivationReason.EVICTED, tx.now, terms)
    if found.lease_epoch is None:
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            "cannot evict a machine that has no lease: deactivate it",
            metadata={"id": machine_id, "from": found.state_at(tx.now, terms).value, "action": "evict"},
        )
    await store.update_machine(tx, gone)
    await emit(tx, gone_event(gone, actor, reason))
    return gone, terms
