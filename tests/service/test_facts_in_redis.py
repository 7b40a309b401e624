"""Facts in Redis spare a process that has just started the record, and make no answer older."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from lictor.common.v1.common_pb2 import Freshness
from pydantic import SecretStr

from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import wait_for
from shared.embedded.valkey import EmbeddedValkey
from shared.facts import standing
from shared.freshness.redis_tier import RedisTier
from tests.helpers.builders import Shop, open_shop
from tests.helpers.embedded import state_directory
from tests.helpers.record import OwnRecord, scratch
from tests.helpers.redis_tier import PATIENT_S, emptied, looking
from tests.helpers.serving import samples
from tests.helpers.suite import Suite, World, running_suite

L_MS = 800
"""As long as in production and longer: a process that has just started on a busy machine has a lease."""


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[EmbeddedValkey]:
    with state_directory() as state, EmbeddedValkey(state) as server:
        yield server


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to go to the record."""
    monkeypatch.setattr(standing, "RedisTier", partial(RedisTier, budget_s=PATIENT_S))


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="record")
async def _record(postgres: EmbeddedPostgres) -> AsyncGenerator[OwnRecord]:
    async with scratch(postgres, migrated=False) as made:
        yield OwnRecord(made)


@asynccontextmanager
async def process(record: OwnRecord, folder: Path, valkey: EmbeddedValkey) -> AsyncGenerator[Suite]:
    """One that has just started: on the same record, Redis and root secret as the others."""
    async with running_suite(record, folder, l_ms=L_MS, redis_url=SecretStr(valkey.dsn())) as suite:
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
    record: OwnRecord, tmp_path: Path, server: EmbeddedValkey
) -> None:
    valkey = emptied(server)
    async with process(record, tmp_path, valkey) as first, first.world() as world:
        shop, license_id, key = await issued(world)
        assert (await asked_of(first, world, key))[0] == "VALID"
        await stored(valkey, 2)
        async with process(record, tmp_path, valkey) as second:
            assert await asked_of(second, world, key) == ("VALID", Freshness.LEASED)
            assert await counted(second, "lictor_facts_from_redis_total") >= 1
            await shop.client.licenses.revoke(license_id)
            assert (await asked_of(second, world, key))[0] == "REVOKED"


async def test_a_process_that_starts_after_a_change_does_not_believe_what_was_stored_before(
    record: OwnRecord, tmp_path: Path, server: EmbeddedValkey
) -> None:
    valkey = emptied(server)
    async with process(record, tmp_path, valkey) as first, first.world() as world:
        shop, license_id, key = await issued(world)
        assert (await asked_of(first, world, key))[0] == "VALID"
        await stored(valkey, 2)
        await shop.client.licenses.revoke(license_id)
        async with process(record, tmp_path, valkey) as second:
            assert (await asked_of(second, world, key)) == ("REVOKED", Freshness.RECORD)
            assert await counted(second, "lictor_facts_refused_total") >= 1
