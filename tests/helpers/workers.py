"""The worker of boundaries as tests run it: on connections of its own, tick by tick; and licenses for it, in bulk."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from services.license.boundaries import BoundaryWorker
from services.license.worker_metrics import WorkerMetrics
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from tests.helpers.serving import until
from tests.helpers.suite import Suite, World


@dataclass(frozen=True)
class Ticking:
    """A worker with a pool and counters of its own, as each process has one."""

    worker: BoundaryWorker
    metrics: WorkerMetrics
    db: Database

    async def settle(self) -> None:
        """Looks until nothing is due."""
        while await self.worker.recheck() or await self.worker.tick():
            pass


@asynccontextmanager
async def ticking(suite: Suite, size: int = 1) -> AsyncGenerator[Ticking]:
    target = PostgresTarget(suite.settings.postgres_dsn.get_secret_value())
    async with Database.opened(target, Role.LICENSE_WORKER, size=size) as db:
        metrics = WorkerMetrics()
        yield Ticking(BoundaryWorker(db, metrics), metrics, db)


async def told(world: World, license_id: str) -> list[str]:
    """The types of a license's events without their first word, as its account sees them."""
    return [event.type.removeprefix("license.") async for event in world.test.licenses.events(license_id)]


async def record_now(suite: Suite) -> datetime:
    async with suite.admin() as conn:
        return await conn.fetchval("SELECT clock_timestamp()")


async def copies(suite: Suite, license_id: str, count: int, expires_at: datetime) -> list[str]:
    """More licenses like one, all of which expire at a time: what an import leaves behind."""
    async with suite.admin() as conn:
        columns = [
            row["attname"]
            for row in await conn.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'license.license'::regclass AND attnum > 0 "
                "AND NOT attisdropped AND attname NOT IN ('license_id', 'external_id', 'expires_at', 'starts_at')"
            )
        ]
        rows = await conn.fetch(
            f"INSERT INTO license.license (license_id, starts_at, expires_at, {', '.join(columns)}) "
            f"SELECT license_id || '_' || n, $3::timestamptz - interval '30 days', $3, {', '.join(columns)} "
            "FROM license.license, generate_series(1, $2) AS n WHERE license_id = $1 RETURNING license_id",
            license_id, count, expires_at,
        )  # fmt: skip
        return [row["license_id"] for row in rows]


async def events_of(suite: Suite, license_ids: list[str]) -> dict[str, list[str]]:
    """The events of many licenses in their order, by license; fails where a number is missing or there twice."""
    async with suite.admin() as conn:
        rows = await conn.fetch(
            "SELECT subject, array_agg(type ORDER BY subject_seq) AS types, array_agg(subject_seq ORDER BY subject_seq) AS seqs "
            "FROM record.event WHERE subject = ANY ($1) GROUP BY subject",
            license_ids,
        )
    for row in rows:
        assert row["seqs"] == list(range(1, len(row["seqs"]) + 1)), row["subject"]
    return {row["subject"]: row["types"] for row in rows}


async def due_count(suite: Suite) -> int:
    async with suite.admin() as conn:
        return await conn.fetchval("SELECT count(*) FROM license.boundary WHERE due_at <= now()")


async def sleep_until(suite: Suite, at: datetime) -> None:
    """Waits until the record's clock has passed a moment."""

    async def passed() -> bool:
        return await record_now(suite) >= at

    await until(passed)
