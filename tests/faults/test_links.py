"""The links that other tests put between a process and Postgres do what these tests take them for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import asyncpg
import pytest
import pytest_asyncio

from shared.embedded.postgres import SUPERUSER, EmbeddedPostgres
from tests.helpers.links import Link, link_to
from tests.helpers.serving import until

BIG = "SELECT repeat('x', 3000000)"


@pytest_asyncio.fixture(loop_scope="session", name="link")
async def _link(postgres: EmbeddedPostgres) -> AsyncGenerator[Link]:
    async with link_to(postgres.socket_dir) as link:
        yield link


async def connected(link: Link) -> asyncpg.Connection:
    return await asyncpg.connect(link.dsn, user=SUPERUSER, timeout=5)


async def test_everything_passes_in_its_order(link: Link) -> None:
    conn = await connected(link)
    assert len(await conn.fetchval(BIG)) == 3_000_000
    assert await conn.fetchval("SELECT length($1::text)", "y" * 2_000_000) == 2_000_000
    await conn.close()


async def test_a_slow_link_delays_each_way(link: Link) -> None:
    conn = await connected(link)
    link.delay_s = 0.1
    began = time.monotonic()
    assert await conn.fetchval("SELECT 1") == 1
    assert time.monotonic() - began > 0.2
    link.heal()
    began = time.monotonic()
    assert await conn.fetchval("SELECT 1") == 1
    assert time.monotonic() - began < 0.1
    await conn.close()


async def test_a_frozen_link_goes_on_where_it_was(link: Link) -> None:
    conn = await connected(link)
    link.freeze()
    asking = asyncio.create_task(conn.fetchval("SELECT 1"))
    done, _ = await asyncio.wait({asking}, timeout=0.2)
    assert not done
    link.heal()
    assert await asyncio.wait_for(asking, 5) == 1
    await conn.close()


async def test_a_link_that_is_cut_lets_nobody_through(link: Link, postgres: EmbeddedPostgres) -> None:
    conn = await connected(link)
    link.cut()
    with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
        await conn.fetchval("SELECT 1")
    with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
        await connected(link)
    link.heal()
    conn = await connected(link)
    link.drop()
    with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
        await conn.fetchval("SELECT 1")
    conn = await connected(link)
    assert await conn.fetchval("SELECT 1") == 1
    await conn.close()
    outside = await asyncpg.connect(postgres.admin_dsn())
    assert await outside.fetchval("SELECT 1") == 1
    await outside.close()


async def test_the_end_of_one_side_is_the_end_of_the_other(link: Link) -> None:
    conn = await connected(link)
    pid = await conn.fetchval("SELECT pg_backend_pid()")
    other = await connected(link)
    await other.fetchval("SELECT pg_terminate_backend($1)", pid)
    await until(conn.is_closed)
    await other.close()
