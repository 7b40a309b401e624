"""Heartbeats of many machines and processes, written together: as many transactions as there are batches, not machines.

A batch goes at once where none was under way for a while; else beats gather until the one before is over, and a while longer.
Each beat is answered when its batch is committed. Whatever a batch does not take, since it is no plain heartbeat of what lives or
since somebody holds that, its caller takes to a transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from services.machine import beat_store
from services.machine.beat_store import Heard, Key, ProcessKey, Under
from services.machine.metrics import BeatMetrics
from services.machine.processes import Process
from shared.clock import Clock
from shared.db.pool import Database
from shared.errors import DomainError, Reason
from shared.observe.logging import get_logger
from shared.rules.heartbeats import deadline
from shared.tenancy import Tenant

APART_S: Final = 0.2
"""From the beginning of one batch to that of the next, unless a whole batch waits: five a second at most, whoever beats."""

MOST: Final = 1000
"""Machines and processes of a batch."""

MOST_WAITING: Final = 10_000
"""Machines and processes that wait for a batch: some megabytes. Calls in flight are bounded far below."""

BATCH_WITHIN_S: Final = 5.0
"""A batch takes no longer, or all of it is refused."""

RETRY_AFTER_MS: Final = 1000

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """A heartbeat that is in the record, of a machine or its process that lives on."""

    under: Under
    heard: Heard | Process

    @property
    def deadline(self) -> datetime | None:
        """When it is dead unless it is heard of before; None for never."""
        if isinstance(self.heard, Process):
            return self.heard.deadline(self.interval)
        return deadline(
            required=self.under.required,
            interval=self.interval,
            heartbeat_from=self.heard.heartbeat_from,
            last_heartbeat_at=self.heard.last_heartbeat_at,
            offline_until=self.heard.offline_until,
        )

    @property
    def interval(self) -> timedelta:
        """How often one is due."""
        return self.under.interval


@dataclass(frozen=True, slots=True)
class _Caller:
    """`license_id` is what its machines must be of; None for any."""

    license_id: str | None
    answer: asyncio.Future[Taken | None]

    def may(self, under: Under) -> bool:
        return self.license_id is None or self.license_id == under.license_id


@dataclass(frozen=True, slots=True)
class _Waiting:
    since: float
    callers: list[_Caller] = field(default_factory=list[_Caller])


class Beats:
    """The heartbeats of one process. `db` is the worker's pool, `facts` the pool that reads facts."""

    def __init__(self, db: Database, facts: Database, clock: Clock, metrics: BeatMetrics) -> None:
        self._db = db
        self._facts = facts
        self._clock = clock
        self._metrics = metrics
        self._waiting: dict[Key | ProcessKey, _Waiting] = {}
        self._some = asyncio.Event()
        self._full = asyncio.Event()

    async def beat(self, tenant: Tenant, machine_id: str, license_id: str | None = None) -> Taken | None:
        """Once it is committed; None where the batch did not take it, as it does not where the machine is of another license than
        `license_id`. OVERLOADED, RECORD_UNREACHABLE."""
        return await self._wait((tenant.account_id, tenant.mode.value, machine_id), license_id)

    async def beat_process(
        self, tenant: Tenant, machine_id: str, name: str, license_id: str | None = None
    ) -> tuple[Process, timedelta] | None:
        """The same for a process of the machine: as it is by now, and how often its heartbeats are due."""
        taken = await self._wait((tenant.account_id, tenant.mode.value, machine_id, name), license_id)
        return (taken.heard, taken.interval) if taken is not None and isinstance(taken.heard, Process) else None

    async def _wait(self, key: Key | ProcessKey, license_id: str | None) -> Taken | None:
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= MOST_WAITING:
                raise DomainError(
                    Reason.OVERLOADED, "too many heartbeats wait to be written", retry_after_ms=RETRY_AFTER_MS
                )
            waiting = self._waiting[key] = _Waiting(self._clock.boottime())
        answer: asyncio.Future[Taken | None] = asyncio.get_running_loop().create_future()
        waiting.callers.append(_Caller(license_id, answer))
        self._some.set()
        if len(self._waiting) >= MOST:
            self._full.set()
        return await answer

    async def run(self) -> None:
        """Batch after batch; ends only when it is cancelled."""
        while True:
            await self._some.wait()
            began = self._clock.boottime()
            await self.flush()
            await self._apart(began + APART_S - self._clock.boottime())

    async def drain(self) -> None:
        """Writes what still waits, after the last call."""
        while self._waiting:
            await self.flush()

    async def flush(self) -> None:
        """Writes one batch, and answers all of it: also when it fails."""
        batch = {key: self._waiting.pop(key) for key in list(self._waiting)[:MOST]}
        if not self._waiting:
            self._some.clear()
        if len(self._waiting) < MOST:
            self._full.clear()
        batch = {key: one for key, one in batch.items() if not all(caller.answer.done() for caller in one.callers)}
        if not batch:
            return
        try:
            async with asyncio.timeout(BATCH_WITHIN_S):
                taken = await self._write(batch)
        except BaseException as error:
            _refuse(batch, error)
            self._metrics.failed.inc()
            _log.warning("heartbeats_refused", machines=len(batch), exc_info=error)
            if not isinstance(error, Exception):
                raise
            return
        now = self._clock.boottime()
        for key, one in batch.items():
            self._metrics.waited.observe(now - one.since)
            found = taken.get(key)
            for caller in one.callers:
                if not caller.answer.done():
                    caller.answer.set_result(found if found is not None and caller.may(found.under) else None)
        self._metrics.size.observe(len(batch))
        self._metrics.beats.labels("batch").inc(len(taken))
        self._metrics.beats.labels("alone").inc(len(batch) - len(taken))

    async def _write(self, batch: Mapping[Key | ProcessKey, _Waiting]) -> Mapping[Key | ProcessKey, Taken]:
        # Read when all its calls have begun: a policy that had changed before one of them is known to its beat.
        found = await beat_store.load(self._facts, list({key[:3] for key in batch}))
        machines: dict[Key, Under] = {}
        processes: dict[ProcessKey, Under] = {}
        for key, waiting in batch.items():
            under = found.get(key[:3])
            if under is None or not any(caller.may(under) for caller in waiting.callers):
                continue
            if len(key) == 3:
                machines[key] = under
            else:
                processes[key] = under
        taken: dict[Key | ProcessKey, Taken] = {}
        if not machines and not processes:
            return taken
        async with self._db.across_tenants() as conn:
            if machines:
                for key, one in (await beat_store.take(conn, machines)).items():
                    taken[key] = Taken(machines[key], one)
            if processes:
                intervals = {key: under.interval for key, under in processes.items()}
                for named, process in (await beat_store.take_processes(conn, intervals)).items():
                    taken[named] = Taken(processes[named], process)
        return taken

    async def _apart(self, left_s: float) -> None:
        if left_s <= 0:
            return
        try:
            async with asyncio.timeout(left_s):
                await self._full.wait()
        except TimeoutError:
            pass


def _refuse(batch: Mapping[Key | ProcessKey, _Waiting], error: BaseException) -> None:
    refusal = error
    if not isinstance(error, DomainError):
        refusal = DomainError(
            Reason.RECORD_UNREACHABLE, "the heartbeats could not be written", retry_after_ms=RETRY_AFTER_MS
        )
        refusal.__cause__ = error
    for one in batch.values():
        for caller in one.callers:
            if not caller.answer.done():
                caller.answer.set_exception(refusal)
