"""The worker that writes down what time does to machines and processes: who died, whose window is over, whose lease or license
ended.

Nothing waits for it: what a machine is, is said by the time of whoever asks. It tells of it, and frees seats.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from services.machine import due_store, process_due, store, terms_store
from services.machine.events import gone_event, machine_event
from services.machine.fates import Fate, Step, fate_of
from services.machine.metrics import MachineWorkerMetrics
from services.machine.model import Machine
from shared.db.faults import passes
from shared.db.outbox import SOURCE_WORKER, Event, emit_many
from shared.db.pool import Database, Transaction
from shared.errors import DomainError
from shared.observe.logging import get_logger

BATCH: Final = 200
"""How many machines or processes one transaction looks at; a heartbeat of one meanwhile takes a transaction of its own."""

WHERE_HELD: Final = timedelta(seconds=1)
"""When to look again at a machine that something is to be written of, but that somebody holds."""

AFTER_A_FAULT: Final = timedelta(hours=1)
"""When to look again at a machine that cannot be read, or whose fate cannot be computed or written; the others go on."""

_ACTOR: Final = "worker"
_log = get_logger(__name__)


class MachineWorker:
    """Looks at machines that are due, beside any number of others of its kind: what it writes and tells is one transaction."""

    def __init__(self, db: Database, metrics: MachineWorkerMetrics) -> None:
        self._db = db
        self._metrics = metrics

    async def tick(self) -> int:
        """One batch of machines that are due, and one of processes; returns how many were looked at."""
        return await self._machines() + await self._processes()

    async def _processes(self) -> int:
        async with self._db.across_tenants() as conn:
            looked_at, late = await process_due.look(conn, BATCH)
        self._count(looked_at, [(process_due.DEAD, lag) for lag in late])
        return looked_at

    async def _machines(self) -> int:
        told: list[tuple[str, timedelta]] = []
        unknown: list[str] = []
        async with self._db.across_tenants() as conn:
            claimed = await due_store.claim(conn, BATCH)
            for tenant, machine_ids in claimed.items():
                told += await _look_at(await due_store.enter(conn, tenant), machine_ids, unknown)
        looked_at = sum(len(ids) for ids in claimed.values())
        self._count(looked_at, told)
        self._metrics.unknown.inc(len(unknown))
        return looked_at

    def _count(self, looked_at: int, told: Sequence[tuple[str, timedelta]]) -> None:
        """Once it is committed."""
        for name, lag in told:
            self._metrics.told.labels(name).inc()
            self._metrics.lag.observe(lag.total_seconds())
        self._metrics.looked_at.inc(looked_at)

    async def run(self, interval_s: float) -> None:
        """Looks every `interval_s`, give or take a tenth; as long as there is more the next batch follows at once."""
        await asyncio.sleep(interval_s * random.random())  # noqa: S311 - several processes are not to look together
        while True:
            await self._until_done()
            await asyncio.sleep(interval_s * random.uniform(0.9, 1.1))  # noqa: S311

    async def _until_done(self) -> None:
        try:
            while await self.tick() >= BATCH:
                pass
        except DomainError as error:
            _log.warning("worker_failed", worker="machines", reason=error.reason.value)
        except Exception as error:  # noqa: BLE001 - the next look tries again; a worker that ended would free nothing more
            _log.error("worker_failed", worker="machines", exc_info=error)
        else:
            return
        self._metrics.failed.inc()


async def _look_at(tx: Transaction, machine_ids: Sequence[str], unknown: list[str]) -> list[tuple[str, timedelta]]:
    """Writes what has become of a tenant's machines, and when to look next; returns what is told, each with how late. One with
    which that fails keeps no other from its own: the rest is done in halves without it, and it is added to `unknown`."""
    try:
        async with tx.conn.transaction():  # a savepoint
            return await _write_fates(tx, machine_ids)
    except Exception as error:
        if passes(error):
            raise
        if len(machine_ids) == 1:
            _log.error("fate_unknown", machine_id=machine_ids[0], exc_info=error)
            await due_store.look_next(tx, {machine_ids[0]: tx.now + AFTER_A_FAULT})
            unknown.append(machine_ids[0])
            return []
    half = len(machine_ids) // 2
    return [
        *await _look_at(tx, machine_ids[:half], unknown),
        *await _look_at(tx, machine_ids[half:], unknown),
    ]


async def _write_fates(tx: Transaction, machine_ids: Sequence[str]) -> list[tuple[str, timedelta]]:
    machines = await due_store.machines(tx, machine_ids)
    licenses = sorted({machine.license_id for machine in machines if machine.live})
    terms = await terms_store.terms_of_many(tx, licenses)
    fates = {
        machine.machine_id: fate_of(machine, *terms.get(machine.license_id, (None, None)), tx.now)
        for machine in machines
    }
    late = await _held_by_others(
        tx, {machine_id: fate.steps[-1].machine for machine_id, fate in fates.items() if fate.steps}
    )
    fates |= {machine_id: Fate((), tx.now + WHERE_HELD) for machine_id in late}
    steps = [step for fate in fates.values() for step in fate.steps]
    for fate in fates.values():
        if fate.steps:
            await store.update_machine(tx, fate.steps[-1].machine)
    told = [_event(step) for step in steps]
    await emit_many(tx, told)
    await due_store.look_next(tx, {machine_id: fate.look_at for machine_id, fate in fates.items()})
    return [(event.type, tx.now - step.at) for event, step in zip(told, steps, strict=True)]


async def _held_by_others(tx: Transaction, changed: Mapping[str, Machine]) -> set[str]:
    """Of the machines to change those that somebody else is at; the others are held from now on."""
    if not changed:
        return set()
    freed = sorted({machine.license_id for machine in changed.values() if not machine.live})
    seats = await due_store.hold_seats(tx, freed) if freed else set[str]()
    free = [one for one, machine in changed.items() if machine.live or machine.license_id in seats]
    return changed.keys() - await due_store.hold_machines(tx, free)


def _event(step: Step) -> Event:
    if step.machine.live:
        return machine_event(step.event, step.machine, _ACTOR, source=SOURCE_WORKER)
    return gone_event(step.machine, _ACTOR, source=SOURCE_WORKER)
