"""A machine is back from where it was offline."""

from __future__ import annotations

from dataclasses import replace

from services.machine import store
from services.machine.commands.find_machine import find_machine
from services.machine.events import machine_event
from services.machine.model import Action, Machine, refuse_offline_not, refuse_unless_allowed, touched
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction


async def return_machine_file(
    tx: Transaction, *, actor: str, machine_id: str, reason: str
) -> tuple[Machine, Terms | None]:
    """The machine as it is then, whose heartbeats are due again from now on. MACHINE_NOT_FOUND, STATE_TRANSITION_INVALID."""
    found, terms = await find_machine(tx, machine_id)
    refuse_unless_allowed(found, Action.CHECK_IN, tx.now, terms)
    refuse_offline_not(found, tx.now)
    begins = None if found.heartbeat_from is None else tx.now
    back = touched(replace(found, offline_until=None, heartbeat_from=begins), tx.now)
    await store.update_machine(tx, back)
    await emit(tx, machine_event("machine.checked_in", back, actor, reason))
    return back, terms
