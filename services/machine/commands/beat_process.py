"""A process of a machine says that it is there, and takes a place of the license where it has none."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.machine import process_store, seat_store
from services.machine.commands.find_machine import find_machine
from services.machine.events import process_event
from services.machine.fates import RECHECK
from services.machine.model import Action, Machine, State, refuse_unless_allowed
from services.machine.processes import NoPlaceError, Process, among, heard_since, most
from services.machine.terms import Terms, refuse_unusable
from shared.db.outbox import Event, emit_many
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix, new_id


@dataclass(frozen=True, slots=True)
class ProcessBeat:
    """The process after its heartbeat."""

    process: Process
    terms: Terms
    started: bool


async def beat_process(tx: Transaction, *, actor: str, machine_id: str, name: str) -> ProcessBeat:
    """MACHINE_NOT_FOUND, LICENSE_NOT_FOUND, STATE_TRANSITION_INVALID, CUSTOMER_BANNED, POLICY_INCOMPATIBLE,
    MACHINE_LIMIT_EXCEEDED."""
    machine, terms = await find_machine(tx, machine_id)
    if terms is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, machine.license_id)
    found = await process_store.hold(tx, machine_id, name)
    dead = found is not None and found.is_dead(terms.heartbeat_interval, tx.now)
    if found is not None and not dead and machine.state_at(tx.now, terms) is not State.DEACTIVATED:
        # Somebody who began later may have been there before.
        alive = replace(found, last_heartbeat_at=max(tx.now, found.last_heartbeat_at))
        await process_store.beat(tx, alive)
        return ProcessBeat(alive, terms, False)
    refuse_unless_allowed(machine, Action.START_PROCESS, tx.now, terms)
    told: list[Event] = []
    if found is not None:
        await process_store.drop(tx, machine_id, name)
        told.append(process_event("process.heartbeat.dead", found, actor))
    freed = await _make_room(tx, machine, terms)
    told += [process_event("process.heartbeat.dead", one, actor) for one in freed]
    started = Process(
        new_id(Prefix.MACHINE_PROCESS), machine_id, terms.license_id, machine.user_id, name, tx.now, tx.now
    )
    due_at = min(started.deadline(terms.heartbeat_interval), tx.now + RECHECK)
    await process_store.insert(tx, started, due_at)
    await emit_many(tx, [*told, process_event("process.created", started, actor)])
    return ProcessBeat(started, terms, True)


async def _make_room(tx: Transaction, machine: Machine, terms: Terms) -> list[Process]:
    """The dead who were freed for it. POLICY_INCOMPATIBLE, MACHINE_LIMIT_EXCEEDED, and what makes a license unusable.

    No group that the policy counts together has more than the license has in all, which is known without counting.
    """
    seats = await seat_store.get_seats(tx, terms.license_id)
    refuse_unusable(terms, Action.START_PROCESS.value, tx.now, seats.first_activated_at)
    together, allowed = among(terms, machine), most(terms)
    if allowed is None or seats.processes < allowed:
        return []
    since = heard_since(terms.heartbeat_interval, tx.now)
    freed = await process_store.drop_dead(tx, together, since)
    living = await process_store.count(tx, together, since)
    if living >= allowed:
        raise NoPlaceError(machine, allowed, living)
    return list(freed)
