"""Facts in Redis spare a process that has just started the record, and make no answer older."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from lictor.common.v1.common_pb2 import Freshness
from pydantic import SecretStr

from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import wait_for
from shared.embedded.valkey import EmbeddedValkey
from tests.helpers.builders import Shop, open_shop
from tests.helpers.embedded import state_directory
from tests.helpers.redis_tier import emptied, looking
from tests.helpers.serving import samples
from tests.helpers.suite import Suite, World, running_suite


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[EmbeddedValkey]:
    with state_directory() as state, EmbeddedValkey(state) as server:
        yield server


@asynccontextmanager
async def process(postgres: EmbeddedPostgres, folder: Path, valkey: EmbeddedValkey) -> AsyncGenerator[Suite]:
    """One that has just started: on the same record, Redis and root secret as the others."""
    async with running_suite(postgres, folder, redis_url=SecretStr(valkey.dsn())) as suite:
        yield suite


async def counted(suite: Suite, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"http://{suite.bound.ops_addr}/metrics") as answer:
        return samples(await answer.text(), name)[()]


async def stored(valkey: EmbeddedValkey, entries: int) -> None:
    """Puts go out behind the answers."""
    with looking(valkey) as client:
        assert await asyncio.to_thread(wait_for, lambda: int(client.dbsize()) >= entries, 5.0)


async def asked_of(suite: Suite, world: World, key: str) -> tuple[str, int]:
    """The verdict of a process, and where its facts came from."""
    async with suite.client(world.test_key) as client:
        verdict = await client.validate(key=key)
    return verdict.code, verdict.decision.freshness


async def issued(world: World) -> tuple[Shop, str, str]:
    shop = await open_shop(world.test)
    made = await shop.issue()
    return shop, made.license.license_id, made.key


async def test_a_process_that_has_just_started_answers_with_what_another_has_read(
    postgres: EmbeddedPostgres, tmp_path: Path, server: EmbeddedValkey
) -> None:
    valkey = emptied(server)
    async with process(postgres, tmp_path, valkey) as first, first.world() as world:
        shop, license_id, key = await issued(world)
        assert (await asked_of(first, world, key))[0] == "VALID"
        await stored(valkey, 2)
        async with process(postgres, tmp_path, valkey) as second:
            assert await asked_of(second, world, key) == ("VALID", Freshness.LEASED)
            assert await counted(second, "lictor_facts_from_redis_total") >= 1
            await shop.client.licenses.revoke(license_id)
            assert (await asked_of(second, world, key))[0] == "REVOKED"


async def test_a_process_that_starts_after_a_change_does_not_believe_what_was_stored_before(
    postgres: EmbeddedPostgres, tmp_path: Path, server: EmbeddedValkey
) -> None:
    valkey = emptied(server)
    async with process(postgres, tmp_path, valkey) as first, first.world() as world:
        shop, license_id, key = await issued(world)
        assert (await asked_of(first, world, key))[0] == "VALID"
        await stored(valkey, 2)
        await shop.client.licenses.revoke(license_id)
        async with process(postgres, tmp_path, valkey) as second:
            assert (await asked_of(second, world, key)) == ("REVOKED", Freshness.RECORD)
            assert await counted(second, "lictor_facts_refused_total") >= 1
