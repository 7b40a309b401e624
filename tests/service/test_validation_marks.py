"""When licenses were last, and first, found valid: written later, in one go, and told once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from lictor import AsyncLictor

from services.license import validation_marks
from services.license.validation_marks import ValidationMarks
from services.license.worker_metrics import WorkerMetrics
from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import Tenant
from tests.helpers.builders import held, open_shop
from tests.helpers.serving import serving, until
from tests.helpers.suite import Suite, World
from tests.helpers.workers import record_now, ticking, told

SECOND = timedelta(seconds=1)


@pytest_asyncio.fixture(loop_scope="session", name="marks")
async def _marks(suite: Suite) -> AsyncGenerator[ValidationMarks]:
    async with ticking(suite) as one:
        yield ValidationMarks(one.db, WorkerMetrics())


async def usage(suite: Suite, license_id: str) -> asyncpg.Record | None:
    async with suite.admin() as conn:
        return await conn.fetchrow("SELECT * FROM license.license_usage WHERE license_id = $1", license_id)


async def times(suite: Suite, license_id: str) -> tuple[datetime | None, datetime | None]:
    row = await usage(suite, license_id)
    return (None, None) if row is None else (row["first_validated_at"], row["last_validated_at"])


async def issue(world: World) -> str:
    return (await (await open_shop(world.test)).issue()).license.license_id


async def test_many_validations_are_one_mark_and_the_first_is_told_once(
    suite: Suite, world: World, marks: ValidationMarks
) -> None:
    license_id, at = await issue(world), await record_now(suite)
    for n in (0, 3, 1, 2):
        marks.touched((world.tenant(), license_id), at + n * SECOND)
    assert len(marks) == 1
    assert await usage(suite, license_id) is None, "a validation writes nothing"
    assert await marks.flush() == 1
    assert len(marks) == 0
    assert await times(suite, license_id) == (at + 3 * SECOND, at + 3 * SECOND)
    marks.touched((world.tenant(), license_id), at + 9 * SECOND)
    await marks.flush()
    marks.touched((world.tenant(), license_id), at + 5 * SECOND)
    await marks.flush()
    assert await times(suite, license_id) == (at + 3 * SECOND, at + 9 * SECOND), "never back in time"
    assert await told(world, license_id) == ["created", "validated.first"]
    by_alias = await world.test.licenses.events_page(license_id, types=["license.activated"])
    assert [event.type for event in by_alias.events] == ["license.validated.first"]
    event = by_alias.events[0]
    assert datetime.fromisoformat(str(event.data["validated_at"])) == at + 3 * SECOND
    assert (event.source, event.actor) == ("worker", "worker")
    shown = await world.test.licenses.get(license_id)
    assert shown.last_validate_time.ToMicroseconds() == int((at + 9 * SECOND).timestamp() * 1e6)


async def test_processes_that_flush_at_once_tell_the_first_time_once(suite: Suite, world: World) -> None:
    shop = await open_shop(world.test)
    ids = [(await shop.issue()).license.license_id for _ in range(20)]
    at = await record_now(suite)
    async with ticking(suite) as one, ticking(suite) as two, ticking(suite) as three:
        all_marks = [ValidationMarks(each.db, WorkerMetrics()) for each in (one, two, three)]
        for n, each in enumerate(all_marks):
            for license_id in ids[n:] + ids[:n]:
                each.touched((world.tenant(), license_id), at + n * SECOND)
        await asyncio.gather(*(each.flush() for each in all_marks))
    for license_id in ids:
        assert await told(world, license_id) == ["created", "validated.first"]
        assert (await times(suite, license_id))[1] == at + 2 * SECOND


async def test_marks_of_what_is_gone_or_is_not_there_leave_nothing(
    suite: Suite, world: World, marks: ValidationMarks
) -> None:
    license_id, at = await issue(world), await record_now(suite)
    await world.test.licenses.delete(license_id)
    marks.touched((world.tenant(), license_id), at)
    marks.touched((Tenant("acc_none", world.tenant().mode), "lic_none"), at)
    assert await marks.flush() == 2
    assert len(marks) == 0
    assert await usage(suite, license_id) is None


async def test_uses_stay_as_they_are(suite: Suite, world: World, marks: ValidationMarks) -> None:
    license_id = await issue(world)
    await world.test.licenses.increment_uses(license_id, 3)
    marks.touched((world.tenant(), license_id), await record_now(suite))
    await marks.flush()
    assert (await world.test.licenses.get(license_id)).uses == 3
    await world.test.licenses.increment_uses(license_id, 1)
    row = await usage(suite, license_id)
    assert row is not None
    assert row["uses"] == 4
    assert row["first_validated_at"] is not None


async def test_what_could_not_be_written_is_kept_for_the_next_time(
    suite: Suite, world: World, marks: ValidationMarks
) -> None:
    license_id, at = await issue(world), await record_now(suite)
    marks.touched((world.tenant(), license_id), at)
    async with held(suite, "SELECT FROM license.license WHERE license_id = $1 FOR UPDATE", license_id):
        await marks.try_to_flush()  # gives up after two seconds
        assert len(marks) == 1
    marks.touched((world.tenant(), license_id), at + SECOND)
    await marks.flush()
    assert (await times(suite, license_id))[1] == at + SECOND
    assert await told(world, license_id) == ["created", "validated.first"]


async def test_memory_is_bounded(
    suite: Suite, world: World, marks: ValidationMarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_marks, "MAX_MARKS", 10)
    at = await record_now(suite)
    for n in range(25):
        marks.touched((world.tenant(), f"lic_{n}"), at)
    assert len(marks) == 10
    marks.touched((world.tenant(), "lic_0"), at + SECOND)  # one that is there has its place
    assert len(marks) == 10


async def test_many_do_not_wait_for_their_time(
    suite: Suite, world: World, marks: ValidationMarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_marks, "MANY_MARKS", 10)
    at = await record_now(suite)
    running = asyncio.create_task(marks.run(3600.0))
    try:
        for n in range(10):
            marks.touched((world.tenant(), f"lic_{n}"), at)
        await until(lambda: len(marks) == 0)
    finally:
        running.cancel()


async def test_a_process_writes_its_marks_while_it_runs_and_when_it_leaves_and_a_killed_one_loses_them(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with serving(postgres, tmp_path, "grpcio", mark_interval_s="0.1") as served, served.suite.world() as world:
        key, license_id = await validated(world)

        async def seen() -> bool:
            return (await times(served.suite, license_id))[0] is not None

        await until(seen)
        assert await told(world, license_id) == ["created", "validated.first"]
        suspended = await (await open_shop(world.test, code="OTHER")).issue_in("suspended")
        assert not (await world.test.validate(key=suspended.key)).valid
    async with serving(postgres, tmp_path, "grpcio") as leaving, leaving.suite.client(world.test_key) as client:
        before = await times(leaving.suite, license_id)
        assert (await client.validate(key=key)).valid
        other = await (await open_shop(client, code="THIRD")).issue()
        assert (await client.validate(key=other.key)).valid
        assert await times(leaving.suite, license_id) == before
    async with serving(postgres, tmp_path, "grpcio") as killed, killed.suite.client(world.test_key) as client:
        after = await times(killed.suite, license_id)
        assert after[0] == before[0]
        assert after[1] is not None
        assert before[1] is not None
        assert after[1] > before[1]
        assert await times(killed.suite, suspended.license.license_id) == (None, None)
        assert "license.validated.first" in await types_of(client, other.license.license_id)
        assert (await client.validate(key=key)).valid
        os.kill(killed.process.pid, signal.SIGKILL)
        await killed.ended()
        assert await times(killed.suite, license_id) == after


async def types_of(client: AsyncLictor, license_id: str) -> list[str]:
    return [event.type async for event in client.licenses.events(license_id)]


async def validated(world: World) -> tuple[str, str]:
    made = await (await open_shop(world.test)).issue()
    assert (await world.test.validate(key=made.key)).valid
    return made.key, made.license.license_id
