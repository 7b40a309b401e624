"""A machine says that it is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.machine import store
from services.machine.commands.find_machine import find_machine
from services.machine.commands.tell_death import tell_death
from services.machine.events import machine_event
from services.machine.model import Action, Machine, State, refuse_unless_allowed, touched
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason, not_found
from shared.rules.heartbeats import HeartbeatStatus, may_revive


@dataclass(frozen=True, slots=True)
class Beat:
    """The machine after its heartbeat."""

    machine: Machine
    terms: Terms
    resurrected: bool


async def beat_machine(tx: Transaction, *, actor: str, machine_id: str) -> Beat:
    """MACHINE_NOT_FOUND, LICENSE_NOT_FOUND, STATE_TRANSITION_INVALID, HEARTBEAT_DEAD.

    A death that nobody has written down yet is told first, so that each life that ends is told of once.
    """
    found, terms = await find_machine(tx, machine_id)
    if terms is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, found.license_id)
    state = found.state_at(tx.now, terms)
    if state is State.DEAD:
        died_at = found.died_at or found.deadline(terms) or tx.now
        if not may_revive(died_at, terms.heartbeat_resurrection, tx.now):
            raise DomainError(
                Reason.HEARTBEAT_DEAD,
                "the machine was not heard of in time, and can't live again: activate it again",
                metadata={"id": machine_id},
            )
        found = await tell_death(tx, actor, found, terms)
        action, name = Action.REVIVE, "machine.heartbeat.resurrected"
    else:
        action, name = Action.PING, "machine.heartbeat.started"
        refuse_unless_allowed(found, action, tx.now, terms)
    # Somebody who began later may have been there before.
    heard_at = tx.now if found.last_heartbeat_at is None else max(tx.now, found.last_heartbeat_at)
    alive = replace(found, heartbeat_status=HeartbeatStatus.ALIVE, died_at=None, last_heartbeat_at=heard_at)
    if state is State.ALIVE:
        await store.update_beat(tx, alive)
        return Beat(alive, terms, False)
    alive = touched(replace(alive, heartbeat_from=tx.now), tx.now)
    await store.update_machine(tx, alive)
    await emit(tx, machine_event(name, alive, actor))
    return Beat(alive, terms, action is Action.REVIVE)
