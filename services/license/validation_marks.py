"""When licenses were last found valid: kept in memory, written every few seconds, so that a validation writes nothing.

What a process has not written when it is killed is lost: marks, and no right hangs on them.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import datetime
from itertools import chain, islice
from typing import Final

from services.license import mark_store
from services.license.events import event_data
from services.license.mark_store import Mark
from services.license.model import License
from services.license.worker_metrics import WorkerMetrics
from shared.db.outbox import SOURCE_WORKER, Event, emit_all
from shared.db.pool import Database
from shared.errors import DomainError
from shared.observe.logging import get_logger
from shared.tenancy import Tenant

MAX_MARKS: Final = 100_000
"""Licenses that are kept between two writes: about 40 MB, and as much while they are written. More find no room and are counted;
a later validation may."""

MANY_MARKS: Final = MAX_MARKS // 2
"""As soon as there are so many they are written."""

BATCH_MARKS: Final = 500
"""Licenses that one transaction marks."""

_ACTOR: Final = "worker"
_log = get_logger(__name__)


MarkKey = tuple[Tenant, str]
"""A license: whose it is, and its id."""


class ValidationMarks:
    """The marks of one process."""

    def __init__(self, db: Database, metrics: WorkerMetrics) -> None:
        self._db = db
        self._metrics = metrics
        self._marks: dict[MarkKey, datetime] = {}
        self._many = asyncio.Event()

    def __len__(self) -> int:
        return len(self._marks)

    def touched(self, key: MarkKey, at: datetime) -> None:
        """A license was found valid at `at`, by Postgres. Costs a look into a dictionary."""
        known = self._marks.get(key)
        if known is not None:
            if at > known:
                self._marks[key] = at
        elif len(self._marks) >= MAX_MARKS:
            self._metrics.marks_dropped.inc()
        else:
            self._marks[key] = at
            if len(self._marks) == MANY_MARKS:
                self._many.set()

    async def flush(self) -> int:
        """Writes all marks of this moment, a batch between two turns of others; returns how many. Where a batch fails, all that
        is not written is kept for the next time."""
        marks, self._marks = self._marks, {}
        self._many.clear()
        left = iter(marks.items())
        while batch := list(islice(left, BATCH_MARKS)):
            try:
                await self._write([Mark(tenant, license_id, at) for (tenant, license_id), at in batch])
            except BaseException:
                self._marks = dict(chain(batch, left)) | self._marks  # which are later
                raise
        return len(marks)

    async def run(self, interval_s: float) -> None:
        """Writes every `interval_s`, give or take a tenth, and sooner where there are many."""
        while True:
            with suppress(TimeoutError):
                # Several processes are not to write together.
                async with asyncio.timeout(interval_s * random.uniform(0.9, 1.1)):  # noqa: S311
                    await self._many.wait()
            await self.try_to_flush()

    async def try_to_flush(self) -> None:
        """As `flush`; what keeps it from writing is logged and counted."""
        try:
            await self.flush()
        except DomainError as error:
            _log.warning("worker_failed", worker="validation_marks", reason=error.reason.value)
        except Exception as error:  # noqa: BLE001 - the next flush tries again
            _log.error("worker_failed", worker="validation_marks", exc_info=error)
        else:
            return
        self._metrics.failed_ticks.labels("validation_marks").inc()

    async def _write(self, batch: list[Mark]) -> None:
        async with self._db.across_tenants() as conn:
            unseen = await mark_store.mark(conn, batch)
        if not unseen:
            return
        # In a transaction of its own: it holds licenses, and marks alone are not worth that anybody waits for them.
        async with self._db.across_tenants() as conn:
            first = await mark_store.mark_first(conn, unseen)
            await emit_all(
                conn,
                [(mark.tenant, _first(mark, license_)) for mark, license_ in first],
            )


def _first(mark: Mark, license_: License) -> Event:
    data = {**event_data(license_, mark.at), "validated_at": mark.at.isoformat()}
    return Event("license.validated.first", mark.license_id, data, _ACTOR, source=SOURCE_WORKER)
