"""The worker that tells what time alone does to licenses: that one is about to expire, has expired, is to check in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import asyncpg

from services.license import boundary_store
from services.license.boundary_model import Boundary, Due, Moments, course_of, due
from services.license.boundary_store import Claimed
from services.license.events import event_data
from services.license.model import License, Status
from services.license.worker_metrics import WorkerMetrics
from shared.db.outbox import SOURCE_WORKER, Event, emit_all
from shared.db.pool import Database
from shared.errors import DomainError
from shared.observe.logging import get_logger
from shared.tenancy import Tenant

BATCH_LICENSES: Final = 100
"""How many licenses one transaction looks at; whoever changes one of them waits for it, a few hundredths of a second."""

RECHECK_LICENSES: Final = 500
"""How many licenses under a changed policy one transaction makes due."""

AFTER_A_FAULT: Final = timedelta(hours=1)
"""When to look again at a license whose boundaries cannot be computed; the others go on meanwhile."""

EXPIRED: Final = "expired"
"""The reason of a revocation by the policy's expiration strategy."""

_ACTOR: Final = "worker"
_log = get_logger(__name__)


class BoundaryWorker:
    """Tells boundaries, exactly once each, beside any number of others of its kind: what was told is stored with the event."""

    def __init__(self, db: Database, metrics: WorkerMetrics) -> None:
        self._db = db
        self._metrics = metrics

    async def tick(self) -> int:
        """One batch of licenses that are due; returns how many were looked at."""
        async with self._db.across_tenants() as conn:
            claimed = await boundary_store.claim(conn, BATCH_LICENSES)
            if not claimed:
                return 0
            told = await self._tell(conn, claimed)
        # Counted once it is committed.
        for kind, lag_s in told:
            self._metrics.told.labels(kind.value).inc()
            self._metrics.lag.observe(lag_s)
        return len(claimed)

    async def recheck(self) -> bool:
        """One batch of the licenses under a policy that has changed; returns whether there was such a policy."""
        async with self._db.across_tenants() as conn:
            return await boundary_store.recheck(conn, RECHECK_LICENSES)

    async def run(self, interval_s: float) -> None:
        """Looks every `interval_s`, give or take a tenth; as long as there is more the next batch follows at once."""
        await asyncio.sleep(interval_s * random.random())  # noqa: S311 - several processes are not to look together
        while True:
            await self._until_done("recheck", self.recheck)
            await self._until_done("boundaries", self._full_tick)
            await asyncio.sleep(interval_s * random.uniform(0.9, 1.1))  # noqa: S311

    async def _full_tick(self) -> bool:
        return await self.tick() == BATCH_LICENSES

    async def _until_done(self, name: str, batch: Callable[[], Awaitable[bool]]) -> None:
        """Batch after batch, as long as there may be more."""
        try:
            while await batch():
                pass
        except DomainError as error:
            _log.warning("worker_failed", worker=name, reason=error.reason.value)
        except Exception as error:  # noqa: BLE001 - the next tick tries again; a worker that ended would tell nothing more
            _log.error("worker_failed", worker=name, exc_info=error)
        else:
            return
        self._metrics.failed_ticks.labels(name).inc()

    async def _tell(self, conn: asyncpg.Connection, claimed: Sequence[Claimed]) -> list[tuple[Boundary, float]]:
        told: list[tuple[Tenant, Event]] = []
        counted: list[tuple[Boundary, float]] = []
        looked_at: list[tuple[Claimed, Moments, datetime | None]] = []
        revoked: list[tuple[Claimed, License]] = []
        for one in claimed:
            found = _due_of(one)
            changed = _revoked(one.license, one.now)
            looked_at.append((one, found.told, found.look_at))
            told += [
                (one.tenant, _event(kind.value, changed, one.now, {"boundary_time": at.isoformat()}))
                for kind, at in found.tell
            ]
            counted += [(kind, (one.now - at).total_seconds()) for kind, at in found.tell]
            if changed is not one.license:
                revoked.append((one, changed))
                told.append((one.tenant, _event("license.revoked", changed, one.now, reason=EXPIRED)))
        await boundary_store.revoke(conn, revoked)
        await boundary_store.save(conn, looked_at)
        await emit_all(conn, told)
        return counted


def _due_of(one: Claimed) -> Due:
    """What is to be told of a license. One whose boundaries cannot be computed keeps no other from being told."""
    try:
        return due(course_of(one.license), one.told, one.now)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about this license alone
        _log.error("boundaries_unknown", license_id=one.license.license_id, exc_info=error)
        return Due((), one.told, one.now + AFTER_A_FAULT)


def _revoked(license_: License, now: datetime) -> License:
    """The license as it is stored from now on: revoked, where it has ended and its policy's strategy says so."""
    if license_.status is not Status.ACTIVE or license_.status_at(now) is not Status.REVOKED:
        return license_
    return replace(
        license_, status=Status.REVOKED, status_reason=EXPIRED, revision=license_.revision + 1, updated_at=now
    )


def _event(
    name: str, license_: License, now: datetime, also: Mapping[str, str] = MappingProxyType({}), reason: str = ""
) -> Event:
    return Event(name, license_.license_id, {**event_data(license_, now), **also}, _ACTOR, reason, SOURCE_WORKER)
