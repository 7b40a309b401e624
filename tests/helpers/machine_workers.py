"""The worker of machines as tests run it, look by look; and machines for it, in bulk."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.machine.metrics import MachineWorkerMetrics
from services.machine.worker import MachineWorker
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from tests.helpers.suite import Suite


@dataclass(frozen=True)
class Looking:
    """A worker with a pool and counters of its own, as each process has one."""

    worker: MachineWorker
    metrics: MachineWorkerMetrics

    async def settle(self) -> int:
        """Looks until nothing is due; returns at how many machines."""
        total = 0
        while looked_at := await self.worker.tick():
            total += looked_at
        return total


@asynccontextmanager
async def looking(suite: Suite, size: int = 1) -> AsyncGenerator[Looking]:
    target = PostgresTarget(suite.settings.postgres_dsn.get_secret_value())
    async with Database.opened(target, Role.MACHINE_WORKER, size=size) as db:
        metrics = MachineWorkerMetrics()
        yield Looking(MachineWorker(db, metrics), metrics)


async def machine_copies(suite: Suite, machine_id: str, count: int) -> list[str]:
    """More machines like one, each with a beat like its; their identities are told apart by a number."""
    async with suite.admin() as conn:
        columns = [
            row["attname"]
            for row in await conn.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'machine.machine'::regclass AND attnum > 0 "
                "AND NOT attisdropped AND attname NOT IN ('machine_id', 'external_id', 'identity_hash')"
            )
        ]
        rows = await conn.fetch(
            f"INSERT INTO machine.machine (machine_id, identity_hash, {', '.join(columns)}) "
            f"SELECT machine_id || '_' || n, identity_hash || n::text::bytea, {', '.join(columns)} "
            "FROM machine.machine, generate_series(1, $2) AS n WHERE machine_id = $1 RETURNING machine_id",
            machine_id, count,
        )  # fmt: skip
        made = [row["machine_id"] for row in rows]
        await conn.execute(
            "INSERT INTO machine.beat (account_id, mode, machine_id, last_heartbeat_at, lease_expires_at) "
            "SELECT account_id, mode, m, last_heartbeat_at, lease_expires_at FROM machine.beat, unnest($2::text[]) AS m "
            "WHERE machine_id = $1",
            machine_id, made,
        )  # fmt: skip
        return made
