"""A leased seat is given up by whoever has the lease."""

from __future__ import annotations

from services.machine import store
from services.machine.commands.find_machine import find_machine
from services.machine.events import gone_event
from services.machine.leases import refuse_lost
from services.machine.model import DeactivationReason, Machine, ended
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction


async def release_seat(
    tx: Transaction, *, actor: str, machine_id: str, epoch: int, reason: str
) -> tuple[Machine, Terms | None]:
    """MACHINE_NOT_FOUND, SEAT_LOST."""
    found, terms = await find_machine(tx, machine_id)
    refuse_lost(found, epoch, tx.now)
    gone = ended(found, DeactivationReason.SELF, tx.now)
    await store.update_machine(tx, gone)
    await emit(tx, gone_event(gone, actor, reason))
    return gone, terms
