"""Licenses that many ask for at once are read together: everybody has their own answer, as of after they asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from shared.errors import DomainError, Reason
from shared.facts.gathering import MOST, WIDTH, Gathering
from shared.facts.license import LicenseValue, Wanted
from shared.facts.license_loads import load_one
from tests.helpers.builders import held, open_shop
from tests.helpers.serving import until
from tests.helpers.suite import Suite, World

LICENSES = 12


@asynccontextmanager
async def facts_db(suite: Suite) -> AsyncGenerator[Database]:
    async with Database.opened(PostgresTarget(suite.settings.postgres_dsn.get_secret_value()), Role.FACTS) as db:
        yield db


async def some(world: World, count: int = LICENSES) -> Sequence[Wanted]:
    shop = await open_shop(world.test)
    return [Wanted((), (await shop.issue()).license.license_id) for _ in range(count)]


async def test_each_has_its_own_answer(suite: Suite, world: World) -> None:
    wanted = [*await some(world), Wanted((), "lic_of_nobody"), Wanted((b"\0" * 32,), None)]
    tenant = world.tenant()
    async with facts_db(suite) as db:
        gathering = Gathering(db)
        loads = await asyncio.gather(*[gathering.load(tenant, one) for one in wanted])
        for one, load in zip(wanted, loads, strict=True):
            alone = await load_one(db, tenant, one)
            assert load.facts == alone.facts
            assert load.counts == alone.counts
            assert load.at <= alone.at


async def test_those_that_wait_are_read_by_one_statement(suite: Suite, world: World) -> None:
    wanted = await some(world)
    async with facts_db(suite) as db:
        gathering = Gathering(db)
        loads = await asyncio.gather(
            *[gathering.load(world.tenant(), wanted[n % LICENSES]) for n in range(WIDTH + MOST)]
        )
    times = [load.at for load in loads]
    assert len(set(times[:WIDTH])) == WIDTH
    assert len(set(times[WIDTH:])) == 1
    assert min(times[WIDTH:]) > min(times[:WIDTH])


async def test_a_read_begins_after_whoever_is_in_it_has_asked(suite: Suite, world: World) -> None:
    """Its license changes while others' reads are under way, and it asks then."""
    (wanted,) = await some(world, 1)
    assert wanted.license_id is not None
    async with facts_db(suite) as db:
        gathering = Gathering(db)
        first = [asyncio.create_task(gathering.load(world.tenant(), wanted)) for _ in range(WIDTH)]
        await asyncio.sleep(0)
        await world.test.licenses.suspend(wanted.license_id)
        late = await asyncio.gather(*[gathering.load(world.tenant(), wanted) for _ in range(10)])
        await asyncio.gather(*first)
    found = [fact.value for load in late for fact in load.facts.values() if isinstance(fact.value, LicenseValue)]
    assert [one.status for one in found] == ["suspended"] * 10


async def test_who_leaves_takes_nobody_along(suite: Suite, world: World) -> None:
    wanted = await some(world)
    async with facts_db(suite) as db:
        gathering = Gathering(db)
        tasks = [asyncio.create_task(gathering.load(world.tenant(), one)) for one in wanted]
        await asyncio.sleep(0)
        for gone in tasks[::3]:  # one whose statement is under way, and some that wait
            gone.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in ended] == [n % 3 == 0 for n in range(LICENSES)]
        assert (await gathering.load(world.tenant(), wanted[0])).facts


async def test_a_statement_that_fails_fails_for_all_in_it_and_for_no_other(suite: Suite, world: World) -> None:
    wanted = await some(world)
    async with facts_db(suite) as db, suite.admin() as admin:
        gathering = Gathering(db)
        async with held(suite, "LOCK TABLE license.policy IN ACCESS EXCLUSIVE MODE"):
            tasks = [asyncio.create_task(gathering.load(world.tenant(), one)) for one in wanted]
            await until(lambda: _blocked(admin))
            await admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_BLOCKED}")
            first = await asyncio.gather(*tasks[:WIDTH], return_exceptions=True)
        assert [one.reason for one in first if isinstance(one, DomainError)] == [Reason.RECORD_UNREACHABLE] * WIDTH
        assert all(load.facts for load in await asyncio.gather(*tasks[WIDTH:]))


_BLOCKED = "usename = 'lictor_facts' AND wait_event_type = 'Lock'"


async def _blocked(admin: asyncpg.Connection) -> bool:
    return await admin.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {_BLOCKED}") == WIDTH
