"""Facts in Redis come back as they were put or not at all, whatever happens to Redis and whoever writes there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from time import perf_counter

import pytest

from shared.crypto.root_secret import RootSecret
from shared.embedded.valkey import EmbeddedValkey
from shared.freshness import redis_gets, redis_puts
from shared.freshness.breaker import FAILURES, PAUSE_S
from shared.freshness.redis_line import RedisUrlError
from shared.freshness.redis_metrics import Get, Put, TierMetrics
from shared.freshness.redis_tier import BUDGET_S, RedisTier
from shared.freshness.sealed_entry import MAX_BODY_BYTES, PREFIX
from tests.helpers.embedded import frozen, kill, state_directory
from tests.helpers.redis_tier import (
    EPOCH,
    LATER,
    PATIENT_S,
    SECRET,
    TurnedClock,
    Used,
    calls,
    emptied,
    hit,
    looking,
    only_looking,
    recovered,
    used_tier,
)
from tests.helpers.serving import until


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[EmbeddedValkey]:
    with state_directory() as state, EmbeddedValkey(state) as server:
        yield server


@pytest.fixture
def valkey(server: EmbeddedValkey) -> EmbeddedValkey:
    """The module's server, empty."""
    return emptied(server)


async def test_what_was_put_is_found_by_others(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as one, used_tier(valkey.dsn()) as other:
        assert await one.get("one") is None
        await one.put("one", b"facts")
        assert await one.get("one") == b"facts"
        assert await other.get("one") == b"facts"
        assert await other.get("two") is None
        assert (one.misses(), other.misses()) == ({"absent": 1}, {"absent": 1})


async def test_an_entry_lives_for_15_minutes_under_a_name_that_tells_nothing(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        await used.put("license:acc_1/TEST/lic_1", b"facts")
    with looking(valkey) as client:
        names = client.keys()
        assert len(names) == 1
        assert names[0].startswith(PREFIX)
        assert b"lic_1" not in names[0]
        assert 890 < client.ttl(names[0]) <= 900


async def test_another_epochs_entry_is_a_miss(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        await used.put("one", b"facts", EPOCH)
        assert await used.get("one", LATER) is None
        assert await used.get("one", EPOCH) == b"facts"
        assert used.misses() == {"other_epoch": 1}


async def test_with_a_new_root_secret_old_entries_are_misses(valkey: EmbeddedValkey) -> None:
    rotated = RootSecret(((2, bytes(32)), *SECRET.versions))
    async with used_tier(valkey.dsn()) as old, used_tier(valkey.dsn(), rotated) as new:
        await old.put("one", b"old")
        assert await new.get("one") is None
        await new.put("one", b"new")
        assert (await old.get("one"), await new.get("one")) == (b"old", b"new")


async def test_gets_of_one_turn_are_one_mget(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        for number in range(0, 100, 2):
            used.tier.put(f"root {number}", EPOCH, f"facts {number}".encode())
        await until(lambda: used.puts(Put.STORED) == 50)
        found = await asyncio.gather(*(used.get(f"root {number}") for number in range(100)))
        assert found == [None if number % 2 else f"facts {number}".encode() for number in range(100)]
        assert calls(valkey, "mget") == 1
        twice = await asyncio.gather(used.get("root 4"), used.get("root 4"))
        assert twice == [b"facts 4", b"facts 4"]
        assert calls(valkey, "mget") == 2


async def test_a_get_that_is_given_up_disturbs_no_other(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        await used.put("one", b"facts")
        given_up, kept = asyncio.ensure_future(used.get("one")), asyncio.ensure_future(used.get("one"))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await kept == b"facts"
        assert given_up.cancelled()
        assert await used.get("one") == b"facts"


async def test_gets_beyond_the_bound_are_misses(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        await used.put("one", b"facts")
        found = await asyncio.gather(*(used.get("one") for _ in range(redis_gets.MAX_WAITING + 7)))
        assert used.gets(Get.SKIPPED) == 7
        assert found[-7:] == [None] * 7
        assert await used.get("one") == b"facts"


async def test_puts_beyond_the_bound_are_dropped(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        for number in range(redis_puts.MAX_WAITING + 7):
            used.tier.put(f"root {number}", EPOCH, b"facts")
        assert used.puts(Put.DROPPED) == 7
        await until(lambda: used.puts(Put.STORED) == redis_puts.MAX_WAITING)
        large = redis_puts.MAX_WAITING_BYTES // MAX_BODY_BYTES
        for number in range(large + 7):
            used.tier.put(f"large {number}", EPOCH, bytes(MAX_BODY_BYTES))
        assert used.puts(Put.DROPPED) == 14
        await until(lambda: used.puts(Put.STORED) == redis_puts.MAX_WAITING + large)
        used.tier.put("one", EPOCH, bytes(MAX_BODY_BYTES + 1))
        assert used.puts(Put.DROPPED) == 15
        for number in range(large):
            used.tier.put(f"large {number}", EPOCH, bytes(MAX_BODY_BYTES))
        assert used.puts(Put.DROPPED) == 15  # there is room again


async def test_the_last_put_of_a_root_is_the_one_that_is_sent(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        for number in range(20):
            used.tier.put("one", EPOCH, f"facts {number}".encode())
        await until(lambda: used.puts(Put.STORED) == 1)
        assert used.puts(Put.DROPPED) == 19
        assert await used.get("one") == b"facts 19"
        assert calls(valkey, "set") == 1


async def test_a_flush_is_a_miss_and_nothing_more(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        await used.put("one", b"facts")
        with looking(valkey) as client:
            client.flushall()
        assert await used.get("one") is None
        await used.put("one", b"facts")
        assert await used.get("one") == b"facts"
        assert used.misses() == {"absent": 1}


async def test_a_killed_redis_is_a_miss_and_a_new_one_is_taken_up(server: EmbeddedValkey) -> None:
    async with used_tier(server.dsn()) as used:
        await used.put("one", b"facts")
        assert await used.get("one") == b"facts"
        kill(server)
        assert max(await misses_s(used, 10)) < PATIENT_S / 2  # it was not waited for
        assert used.gets(Get.FAILED) >= 1
        assert used.gets(Get.SKIPPED) >= 1
        await asyncio.to_thread(server.restart)
        skipped = used.gets(Get.SKIPPED)
        assert await used.get("one") is None
        assert used.gets(Get.SKIPPED) == skipped + 1  # no probe before its time
        await recovered(used)
        assert await used.get("one") is None
        await used.put("one", b"facts")
        assert await used.get("one") == b"facts"


async def test_a_restart_between_two_gets_costs_no_more_than_an_empty_redis(server: EmbeddedValkey) -> None:
    async with used_tier(server.dsn()) as used:
        await used.put("one", b"facts")
        assert await used.get("one") == b"facts"
        await asyncio.to_thread(server.restart)
        await used.put("one", b"facts")
        assert await used.get("one") == b"facts"
        assert (used.misses(), used.puts(Put.FAILED)) == ({}, 0)


async def test_a_frozen_redis_is_a_miss_in_time_and_then_left_alone(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn(), budget_s=BUDGET_S) as used:
        await used.put("one", b"facts")
        await hit(used)
        with frozen(valkey):
            took_s: list[float] = []
            while used.gets(Get.SKIPPED) == 0:
                begun = perf_counter()
                assert await asyncio.gather(*(used.get("one") for _ in range(50))) == [None] * 50
                took_s.append(perf_counter() - begun)
            assert len(took_s) == FAILURES + 1
            assert max(took_s) < 1.0
            assert 0.8 * BUDGET_S < min(took_s[:-1]) < 3 * BUDGET_S  # a busy machine may be late once
            skipped, begun = used.gets(Get.SKIPPED), perf_counter()
            assert [await used.get("one") for _ in range(1000)] == [None] * 1000
            assert perf_counter() - begun < 1000 * BUDGET_S / 20
            assert used.gets(Get.SKIPPED) == skipped + 1000
            # A probe of a Redis that is still frozen is nobody's to wait for.
            used.clock.at_s += PAUSE_S
            assert await used.get("one") is None
            assert used.gets(Get.SKIPPED) == skipped + 1001
        await recovered(used)
        await hit(used)


async def test_a_process_that_stands_still_reads_what_has_come_meanwhile(valkey: EmbeddedValkey) -> None:
    """Else a busy one would leave Redis alone, and have more to do."""
    async with used_tier(valkey.dsn(), budget_s=BUDGET_S) as used:
        await used.put("one", b"facts")
        await hit(used)
        for _ in range(5):
            asked = asyncio.create_task(used.get("one"))
            for _ in range(5):
                await asyncio.sleep(0)  # until it is on its way
            time.sleep(3 * BUDGET_S)  # noqa: ASYNC251 - it stands still
            behind = asyncio.create_task(used.get("one"))
            assert await asyncio.gather(asked, behind) == [b"facts"] * 2
        assert used.misses() == {}


async def test_puts_to_a_frozen_redis_do_not_pile_up(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn(), budget_s=BUDGET_S) as used:
        await used.put("one", b"facts")
        with frozen(valkey):
            for number in range(500):
                used.tier.put(f"root {number}", EPOCH, bytes(4000))
            await until(lambda: used.puts(Put.FAILED) + used.puts(Put.DROPPED) == 500)
            used.tier.put("two", EPOCH, b"facts")
            assert used.puts(Put.FAILED) + used.puts(Put.DROPPED) == 501
        used.clock.at_s += PAUSE_S
        await used.put("one", b"facts")


async def test_a_redis_that_is_not_there_costs_nothing_but_misses() -> None:
    async with used_tier("unix:///nowhere/valkey.sock") as used:
        used.tier.put("one", EPOCH, b"facts")
        used.tier.publish_hint()
        assert max(await misses_s(used, FAILURES + 2)) < PATIENT_S / 2
        assert used.misses() == {"failed": FAILURES, "skipped": 2}
        await until(lambda: used.puts(Put.FAILED) == 1)


async def test_a_redis_that_refuses_puts_still_answers_gets(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        await used.put("one", b"facts")
        with looking(valkey) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            try:
                for failed in range(1, FAILURES + 1):
                    used.tier.put("two", EPOCH, b"facts")
                    await until(lambda failed=failed: used.puts(Put.FAILED) == failed)
                used.tier.put("two", EPOCH, b"facts")
                assert used.puts(Put.DROPPED) == 1
                assert await used.get("one") == b"facts"
            finally:
                client.config_set("maxmemory", "128mb")
                client.config_set("maxmemory-policy", "allkeys-lru")
        used.clock.at_s += PAUSE_S
        await used.put("two", b"facts")


async def test_a_closed_tier_answers_misses(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        await used.put("one", b"facts")
        with frozen(valkey):
            waiting = [asyncio.ensure_future(used.get("one")) for _ in range(3)]
            await asyncio.sleep(0)
            await used.tier.close()
            assert await asyncio.gather(*waiting) == [None] * 3
        used.tier.put("one", EPOCH, b"facts")
        used.tier.publish_hint()
        assert await used.get("one") is None
        assert used.puts(Put.DROPPED) == 1
    await until(lambda: only_looking(valkey))


@pytest.mark.parametrize("url", ["", "valkey.sock", "http://127.0.0.1/", "redis://h:port/", "redis://h/?unheard=1"])
def test_an_address_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(RedisUrlError) as refusal:
        RedisTier(url, SECRET, TurnedClock(), TierMetrics())
    assert not url or url not in str(refusal.value)


async def misses_s(used: Used, times: int) -> list[float]:
    """How long some gets took that all were misses, s."""
    took_s: list[float] = []
    for _ in range(times):
        begun = perf_counter()
        assert await used.get("one") is None
        took_s.append(perf_counter() - begun)
    return took_s
