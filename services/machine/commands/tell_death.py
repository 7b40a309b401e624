"""A death that nobody has written down yet is told before what comes after it, so that each life that ends is told of once."""

from __future__ import annotations

from services.machine.events import machine_event
from services.machine.fates import buried
from services.machine.model import Machine, State
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.rules.heartbeats import HeartbeatStatus


async def tell_death(tx: Transaction, actor: str, machine: Machine, terms: Terms | None) -> Machine:
    """The machine, dead where its deadline has passed. Whoever asks holds it, and stores it."""
    died_at = machine.deadline(terms)
    told = machine.heartbeat_status is HeartbeatStatus.DEAD
    if died_at is None or told or machine.state_at(tx.now, terms) is not State.DEAD:
        return machine
    dead = buried(machine, died_at, tx.now)
    await emit(tx, machine_event("machine.heartbeat.dead", dead, actor))
    return dead
