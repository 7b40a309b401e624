"""The connections of a role: never more than their number, never one whose state nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import asyncpg
import pytest
import pytest_asyncio

from shared.db import connections as connections_module
from shared.db.connections import Connections
from shared.embedded.postgres import EmbeddedPostgres

SIZE = 3


@pytest_asyncio.fixture
async def held(postgres: EmbeddedPostgres) -> AsyncGenerator[Connections]:
    connections = Connections(lambda: asyncpg.connect(postgres.admin_dsn()), SIZE)
    yield connections
    connections.terminate()


async def test_there_are_never_more_than_their_number_and_nobody_is_forgotten(held: Connections) -> None:
    lent, most, served = 0, 0, set[int]()

    async def one() -> None:
        nonlocal lent, most
        conn = await held.acquire()
        lent += 1
        most = max(most, lent)
        served.add(await conn.fetchval("SELECT pg_backend_pid() FROM pg_sleep(0.02)"))
        lent -= 1
        held.give_back(conn)

    await asyncio.gather(*(one() for _ in range(50)))
    assert most == SIZE
    assert 1 <= len(served) <= SIZE


async def test_one_that_ended_is_replaced(held: Connections) -> None:
    first = await held.acquire()
    pid = await first.fetchval("SELECT pg_backend_pid()")
    held.give_back(first)
    other = await held.acquire()  # the same one: it was put on the list last
    assert await other.fetchval("SELECT pg_backend_pid()") == pid
    other.terminate()
    held.give_back(other)
    fresh = await held.acquire()
    assert await fresh.fetchval("SELECT pg_backend_pid()") != pid
    held.give_back(fresh)


async def test_one_that_ends_while_it_lies_idle_is_replaced(held: Connections) -> None:
    conn = await held.acquire()
    held.give_back(conn)
    conn.terminate()
    fresh = await held.acquire()
    assert await fresh.fetchval("SELECT 1") == 1
    held.give_back(fresh)


async def test_one_left_within_a_transaction_is_closed(held: Connections) -> None:
    conn = await held.acquire()
    await conn.execute("BEGIN")
    held.give_back(conn)
    assert conn.is_closed()
    other = await held.acquire()
    assert other is not conn
    held.give_back(other)


async def test_whoever_waits_too_long_is_told_and_loses_no_place(
    held: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "ACQUIRE_TIMEOUT_S", 0.05)
    lent = [await held.acquire() for _ in range(SIZE)]
    with pytest.raises(TimeoutError):
        await held.acquire()
    waiting = asyncio.create_task(held.acquire())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for conn in lent:
        held.give_back(conn)
    again = [await held.acquire() for _ in range(SIZE)]
    assert set(again) == set(lent)
    for conn in again:
        held.give_back(conn)


async def test_a_connection_that_cannot_be_opened_costs_no_place() -> None:
    async def refuse() -> asyncpg.Connection:
        raise OSError("no")

    connections = Connections(refuse, 1)
    for _ in range(3):
        with pytest.raises(OSError, match="no"):
            await connections.acquire()


async def test_closing_waits_for_what_is_lent(held: Connections) -> None:
    conn = await held.acquire()
    closing = asyncio.create_task(held.close())
    await asyncio.sleep(0)
    assert await conn.fetchval("SELECT 1") == 1
    assert not closing.done()
    held.give_back(conn)
    await closing
    assert conn.is_closed()
