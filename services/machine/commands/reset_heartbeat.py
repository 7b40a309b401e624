"""A machine's heartbeats begin anew."""

from __future__ import annotations

from services.machine import store
from services.machine.commands.find_machine import find_machine
from services.machine.commands.tell_death import tell_death
from services.machine.events import machine_event
from services.machine.model import Machine, reset
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction


async def reset_heartbeat(
    tx: Transaction, *, actor: str, machine_id: str, etag: str, reason: str
) -> tuple[Machine, Terms | None]:
    """MACHINE_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID."""
    found, terms = await find_machine(tx, machine_id, etag)
    anew = reset(await tell_death(tx, actor, found, terms), tx.now, terms)
    await store.update_machine(tx, anew)
    await emit(tx, machine_event("machine.heartbeat.reset", anew, actor, reason))
    return anew, terms
