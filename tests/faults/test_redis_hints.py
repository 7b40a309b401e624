"""Hints over Redis wake those who listen, come again after Redis has gone, and take no more of the loop than their share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import perf_counter

import pytest

from shared.embedded.valkey import EmbeddedValkey
from shared.freshness import redis_hints
from tests.helpers.embedded import kill, state_directory
from tests.helpers.redis_tier import answering, emptied, hears_hints, looking, only_looking, used_tier
from tests.helpers.serving import until


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[EmbeddedValkey]:
    with state_directory() as state, EmbeddedValkey(state) as server:
        yield server


@pytest.fixture
def valkey(server: EmbeddedValkey) -> EmbeddedValkey:
    """The module's server, empty."""
    return emptied(server)


async def test_a_hint_wakes_all_who_listen(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as one, used_tier(valkey.dsn()) as other, used_tier(valkey.dsn()) as third:
        woken: list[str] = []
        one.tier.listen(lambda: woken.append("one"))
        other.tier.listen(lambda: woken.append("other"))
        with looking(valkey) as client:
            await until(lambda: client.pubsub_numsub("x") is not None and len(client.pubsub_channels("lictor:*")) == 1)
            await until(lambda: client.pubsub_numsub(client.pubsub_channels("lictor:*")[0])[0][1] == 2)
        for _ in range(20):
            third.tier.publish_hint()
        await until(lambda: set(woken) == {"one", "other"})
        assert len(woken) == 2  # twenty that waited were one


async def test_hints_come_again_after_redis_has_gone(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_hints, "AGAIN_S", 0.02)
    async with used_tier(valkey.dsn()) as used:
        await hears_hints(used)
        kill(valkey)
        await asyncio.to_thread(valkey.restart)

        async def hint() -> bool:
            used.clock.at_s += 2.0
            used.tier.publish_hint()
            await asyncio.sleep(0.01)
            return used.hints() > heard

        heard = used.hints()
        await until(hint)
    await until(lambda: only_looking(valkey))


async def test_a_listener_that_hears_nothing_tries_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_hints, "AGAIN_S", 0.01)
    monkeypatch.setattr(redis_hints, "QUIET_S", 0.05)
    asked: list[bytes] = []

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(b"connected")
        while data := await reader.read(65536):
            asked.append(data.split(b"\r\n")[2])

    async with answering(says_nothing) as port, used_tier(f"redis://127.0.0.1:{port}") as used:
        used.tier.listen(lambda: None)
        await until(lambda: len(asked) >= 6)
    assert asked[:6] == [b"connected", b"SUBSCRIBE", b"PING"] * 2


async def test_a_flood_of_hints_leaves_the_loop_to_others() -> None:
    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$0\r\n\r\n" * 1000)
            await writer.drain()

    async with answering(floods) as port, used_tier(f"redis://127.0.0.1:{port}") as used:
        used.tier.listen(lambda: None)
        await until(lambda: used.hints() > 0)
        begun = perf_counter()
        before = used.hints()
        await asyncio.sleep(0.5)
        assert perf_counter() - begun < 1.0
        assert used.hints() - before <= (perf_counter() - begun) / redis_hints.REST_S * redis_hints.AT_ONCE
