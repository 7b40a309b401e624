"""Heartbeats of many machines, written together: as many transactions as there are batches, not machines.

A batch goes at once where none was under way for a while; else beats gather until the one before is over, and a while longer.
Each beat is answered when its batch is committed. Whatever a batch does not take, since it is no plain heartbeat of a machine
that lives or since somebody holds the machine, its caller takes to a transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from services.machine import beat_store
from services.machine.beat_store import Heard, Key, Under
from services.machine.metrics import BeatMetrics
from shared.clock import Clock
from shared.db.pool import Database
from shared.errors import DomainError, Reason
from shared.observe.logging import get_logger
from shared.rules.heartbeats import deadline
from shared.tenancy import Tenant

APART_S: Final = 0.2
"""From the beginning of one batch to that of the next, unless a whole batch waits: five a second at most, whoever beats."""

MOST: Final = 1000
"""Machines of a batch."""

MOST_WAITING: Final = 10_000
"""Machines that wait for a batch: some megabytes. Calls in flight are bounded far below."""

BATCH_WITHIN_S: Final = 5.0
"""A batch takes no longer, or all of it is refused."""

RETRY_AFTER_MS: Final = 1000

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """A heartbeat that is in the record, of a machine that lives on."""

    under: Under
    deadline: datetime | None

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
        self._waiting: dict[Key, _Waiting] = {}
        self._some = asyncio.Event()
        self._full = asyncio.Event()

    async def beat(self, tenant: Tenant, machine_id: str, license_id: str | None = None) -> Taken | None:
        """Once it is committed; None where the batch did not take it, as it does not where the machine is of another license than
        `license_id`. OVERLOADED, RECORD_UNREACHABLE."""
        key = (tenant.account_id, tenant.mode.value, machine_id)
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

    async def _write(self, batch: Mapping[Key, _Waiting]) -> Mapping[Key, Taken]:
        # Read when all its calls have begun: a policy that had changed before one of them is known to its beat.
        found = await beat_store.load(self._facts, list(batch))
        under = {key: one for key, one in found.items() if any(caller.may(one) for caller in batch[key].callers)}
        if not under:
            return {}
        async with self._db.across_tenants() as conn:
            heard = await beat_store.take(conn, under)
        return {key: Taken(under[key], _deadline(under[key], one)) for key, one in heard.items()}

    async def _apart(self, left_s: float) -> None:
        if left_s <= 0:
            return
        try:
            async with asyncio.timeout(left_s):
                await self._full.wait()
        except TimeoutError:
            pass


def _refuse(batch: Mapping[Key, _Waiting], error: BaseException) -> None:
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


def _deadline(under: Under, heard: Heard) -> datetime | None:
    return deadline(
        required=under.required,
        interval=under.interval,
        heartbeat_from=heard.heartbeat_from,
        last_heartbeat_at=heard.last_heartbeat_at,
        offline_until=heard.offline_until,
    )
