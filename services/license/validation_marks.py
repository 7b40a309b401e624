"""When licenses were last found valid: kept in memory, written every few seconds, so that a validation writes nothing.

What a process has not written when it is killed is lost: marks, and no right hangs on them.
"""

from __future__ import annotations

import asyncio
import random
from datetime import datetime
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
"""Licenses that are kept between two writes: about 40 MB. More find no room and are counted; their next validation may."""

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

    def __len__(self) -> int:
        return len(self._marks)

    def touched(self, key: MarkKey, at: datetime) -> None:
        """A license was found valid at `at`, by Postgres. Costs a look into a dictionary."""
        known = self._marks.get(key)
        if known is None and len(self._marks) >= MAX_MARKS:
            self._metrics.marks_dropped.inc()
        elif known is None or at > known:
            self._marks[key] = at

    async def flush(self) -> int:
        """Writes all marks of this moment; returns how many. Those of a batch that fails are kept for the next time."""
        marks = [Mark(tenant, license_id, at) for (tenant, license_id), at in self._marks.items()]
        marks.sort(key=lambda mark: (mark.tenant.account_id, mark.tenant.mode, mark.license_id))
        for start in range(0, len(marks), BATCH_MARKS):
            batch = marks[start : start + BATCH_MARKS]
            await self._write(batch)
            for mark in batch:
                if self._marks.get((mark.tenant, mark.license_id)) == mark.at:
                    del self._marks[mark.tenant, mark.license_id]
        return len(marks)

    async def run(self, interval_s: float) -> None:
        """Writes every `interval_s`, give or take a tenth."""
        while True:
            await asyncio.sleep(interval_s * random.uniform(0.9, 1.1))  # noqa: S311 - several processes are not to write together
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
