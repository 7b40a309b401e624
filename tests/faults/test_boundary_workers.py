"""Processes that tell boundaries are killed, replaced and many: what is due is told once, and nothing is left out."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.builders import open_shop
from tests.helpers.events import bad_events
from tests.helpers.serving import samples, serving, until
from tests.helpers.workers import copies, due_count, events_of, record_now

LICENSES = 4000
BOTH = ["license.expiring_soon", "license.expired"]


async def test_each_boundary_is_told_once_by_processes_one_of_which_is_killed_on_the_way(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with serving(postgres, tmp_path, "grpcio") as quiet, quiet.suite.world() as world:
        now = await record_now(quiet.suite)
        first = (await (await open_shop(world.test)).issue(expire_time=now + timedelta(days=100))).license.license_id
        mine = await copies(quiet.suite, first, LICENSES, now - timedelta(hours=1))
        async with serving(postgres, tmp_path, "grpcio", boundary_interval_s="0.01") as killed:

            async def begun() -> bool:
                return len(await events_of(quiet.suite, mine)) > 0

            await until(begun, 20)
            os.kill(killed.process.pid, signal.SIGKILL)
            await killed.ended()
            told_by_it = await events_of(quiet.suite, mine)
        assert 0 < len(told_by_it) < LICENSES, "killed before it had begun, or after it was done"
        assert all(types == BOTH for types in told_by_it.values()), "what was told of a license was told whole"
        async with (
            serving(postgres, tmp_path, "grpcio", boundary_interval_s="0.01") as one,
            serving(postgres, tmp_path, "grpcio", boundary_interval_s="0.01") as two,
        ):

            async def done() -> bool:
                return await due_count(quiet.suite) == 0

            await until(done, 40)
            counted = [samples((await each.get("/metrics"))[1], "lictor_boundaries_total") for each in (one, two)]
        found = await events_of(quiet.suite, mine)
        assert len(found) == LICENSES
        assert all(types == BOTH for types in found.values())
        told = sum(count[("type", "license.expired"),] for count in counted if count)
        assert told >= LICENSES - len(told_by_it)
        async with quiet.suite.admin() as conn:
            assert await bad_events(conn) == []
            unpointed = await conn.fetchval(
                "SELECT count(*) FROM record.event LEFT JOIN record.outbox USING (account_id, mode, event_id) "
                "WHERE subject = ANY ($1) AND outbox.event_id IS NULL",
                mine,
            )
        assert unpointed == 0
