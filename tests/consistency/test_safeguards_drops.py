"""Each drop: with it nothing that was known before is answered any more, neither from memory nor from a store beside the
record that gives back old facts; without it the old state shows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import pytest

from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from shared.facts.following import KINDS
from shared.freshness import keeper
from shared.freshness.poll import Polled
from shared.freshness.snapshot import Stamp
from shared.freshness.tail import MAX_MAP, RETENTION_S, State
from tests.consistency.stage import Cast, Hostile, Process, StageTail, process_on, with_system_id
from tests.helpers.record import Row, Scratch, insert


class Keeping(StageTail):
    """The safeguard off: whatever happens, nothing is dropped."""

    def _why_drop(self, polled: Polled, asked_at: float) -> str | None:
        return None

    def _is_foreign(self, stamp: Stamp) -> bool:
        return False


class Forgetting(StageTail):
    """A half of the safeguard off: what is dropped is let in again, since the base stays where it was."""

    def _drop(self, state: State, why: str) -> None:
        base = self._base
        super()._drop(state, why)
        self._base = base

    def _is_foreign(self, stamp: Stamp) -> bool:
        return False


async def new_epoch(cast: Cast, process: Process) -> None:
    """As after a crash: the log's last rows are lost, and ids are used again."""
    await cast.revoke_unlogged()
    await cast.admin.execute("DELETE FROM record.epoch")


async def other_cluster(cast: Cast, process: Process) -> None:
    """A logical copy took over: the epoch's row came along."""
    await cast.revoke_unlogged()
    process.source.change = with_system_id(7)


async def truncate(cast: Cast, process: Process) -> None:
    """Rows go that no trigger is called for. They come back changed, as a script would load them."""
    async with cast.admin.transaction():
        await cast.admin.execute("TRUNCATE license.account CASCADE")
        await cast.admin.execute("SET LOCAL session_replication_role = replica")
        for table, row in cast.rows.items():
            if table in RELOADED:
                changed = {**row, "status": "revoked"} if table == "license.license" else row
                await insert_unlogged(cast, table, changed)


RELOADED: Final = (
    "license.account", "license.product", "license.tier", "license.policy", "license.customer", "license.license",
)  # fmt: skip


async def insert_unlogged(cast: Cast, table: str, row: Row) -> None:
    await insert(cast.admin, table, row)
    await cast.admin.execute("DELETE FROM record.change_log WHERE xid = pg_current_xact_id() AND kind <> 'drop_all'")


async def newer_version(cast: Cast, process: Process) -> None:
    """Its triggers log the same change under a kind that this process does not know."""
    async with cast.admin.transaction():
        await cast.revoke()
        await cast.admin.execute("UPDATE record.change_log SET kind = 'license_2' WHERE xid = pg_current_xact_id()")


async def many_changes(cast: Cast, process: Process) -> None:
    """More than a poll takes: it brings none of them."""
    process.source.most = 5
    await cast.revoke()
    await cast.admin.execute(
        "INSERT INTO record.change_log (kind, key) SELECT 'license', 'other' || n FROM generate_series(1, 6) AS n"
    )


async def long_gap(cast: Cast, process: Process) -> None:
    """The log is kept for half an hour; who was stopped for longer missed what was trimmed."""
    await cast.revoke()
    await cast.admin.execute(
        "INSERT INTO record.tail_base (epoch, snapshot, at) SELECT epoch, pg_current_snapshot(), "
        "clock_timestamp() - interval '31 min' FROM record.epoch"
    )
    async with Database.opened(PostgresTarget(cast.scratch.dsn()), Role.LICENSE_WORKER) as worker:
        assert await keeper.keep(worker)
    process.clock.at_s += RETENTION_S + 1


@dataclass(frozen=True)
class Case:
    """Why all is dropped, and how that comes to be."""

    why: str
    happens: Callable[[Cast, Process], Awaitable[None]]


CASES: Final = [
    Case("epoch", new_epoch), Case("epoch", other_cluster), Case("drop_all", truncate),
    Case("unknown_kind", newer_version), Case("too_many", many_changes), Case("gap", long_gap),
]  # fmt: skip


@asynccontextmanager
async def knowing(cast: Cast, tail_type: type[StageTail]) -> AsyncGenerator[Process]:
    """A process that holds the license, and has it beside the record."""
    async with process_on(cast.scratch, tail_type=tail_type, beside=Hostile()) as process:
        await cast.learned_by(process)
        yield process


def dropped(process: Process) -> list[str]:
    """Why it has dropped everything."""
    metric = next(iter(process.tail_metrics.dropped.collect()))
    return [one.labels["why"] for one in metric.samples if one.name.endswith("_total") and one.value]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.happens.__name__)
async def test_after_a_drop_nothing_old_is_answered(cast: Cast, case: Case) -> None:
    async with knowing(cast, StageTail) as process:
        await case.happens(cast, process)
        await process.poll()
        assert dropped(process) == [case.why]
        assert len(process.memory) == 0
        assert await cast.status_by(process) == "revoked"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.happens.__name__)
async def test_without_the_drop_memory_answers_from_the_old_state(cast: Cast, case: Case) -> None:
    async with knowing(cast, Keeping) as process:
        await case.happens(cast, process)
        await process.poll()
        assert await cast.status_by(process) == "active"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.happens.__name__)
async def test_without_a_new_base_a_drop_lets_old_facts_in_again(cast: Cast, case: Case) -> None:
    """The map of changes is empty after a drop, and would keep nothing out."""
    async with knowing(cast, Forgetting) as process:
        await case.happens(cast, process)
        await process.poll()
        assert len(process.memory) == 0
        assert await cast.status_by(process) == "active"


@pytest.mark.parametrize(("tail_type", "seen"), [(StageTail, "revoked"), (Forgetting, "active")])
async def test_a_full_map_drops_all(cast: Cast, tail_type: type[StageTail], seen: str) -> None:
    async with knowing(cast, tail_type) as process:
        await cast.revoke()

        def full(polled: Polled) -> Polled:
            keys = [*polled.keys, *(f"license:acc/TEST/lic_{n}" for n in range(MAX_MAP))]
            return replace(polled, keys=keys, xids=[*polled.xids, *[3] * MAX_MAP])

        process.source.change = full
        await process.poll()
        assert dropped(process) == ["map_full"]
        assert await cast.status_by(process) == seen


async def test_a_load_of_an_epoch_that_the_tail_does_not_know_yet_is_refused(cast: Cast) -> None:
    """A load may meet the new epoch before a poll does: its ids mean nothing to the tail."""
    async with process_on(cast.scratch) as process:
        await new_epoch(cast, process)
        await cast.admin.execute("INSERT INTO record.epoch DEFAULT VALUES")
        assert await cast.status_by(process) == "revoked"
        assert len(process.memory) == 0


async def test_the_kinds_are_those_of_the_triggers(db: Scratch) -> None:
    async with db.connect() as conn:
        rows = await conn.fetch("SELECT DISTINCT tgname FROM pg_trigger WHERE tgname LIKE 'log\\_change\\_%'")
    assert {row["tgname"].removeprefix("log_change_") for row in rows} == set(KINDS)
