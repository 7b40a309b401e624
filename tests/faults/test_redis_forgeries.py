"""Who can write to Redis can make misses and put back what was there before, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shared.crypto.root_secret import RootSecret
from shared.embedded.valkey import EmbeddedValkey
from shared.freshness.redis_metrics import Get
from shared.freshness.sealed_entry import MAX_BODY_BYTES, MAX_ENTRY_BYTES, Refusal, Sealer
from tests.helpers.embedded import state_directory
from tests.helpers.redis_tier import EPOCH, SECRET, emptied, looking, used_tier

SEALER = Sealer(SECRET)
NAME = SEALER.name("one")


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[EmbeddedValkey]:
    with state_directory() as state, EmbeddedValkey(state) as server:
        yield server


@pytest.fixture
def valkey(server: EmbeddedValkey) -> EmbeddedValkey:
    """The module's server, empty."""
    return emptied(server)


FORGED = {
    "not ours": (b"facts", Refusal.MALFORMED),
    "nothing": (b"", Refusal.MALFORMED),
    "garbage": (os.urandom(500), None),
    "of another secret": (Sealer(RootSecret(((1, bytes(32)),))).seal(NAME, EPOCH, b"forged"), Refusal.FORGED),
    "of another key": (SEALER.seal(SEALER.name("two"), EPOCH, b"forged"), Refusal.FORGED),
    "with another body": (SEALER.seal(NAME, EPOCH, b"facts")[:-1] + b"S", Refusal.FORGED),
    "with a longer body": (SEALER.seal(NAME, EPOCH, b"facts") + b"!", Refusal.FORGED),
    "too large": (SEALER.seal(NAME, EPOCH, bytes(MAX_BODY_BYTES + 1)), Refusal.OVERSIZE),
    "far too large": (bytes(8 * MAX_ENTRY_BYTES), Refusal.OVERSIZE),
}


@pytest.mark.parametrize("what", FORGED)
async def test_what_others_write_is_a_miss(valkey: EmbeddedValkey, what: str) -> None:
    entry, refusal = FORGED[what]
    async with used_tier(valkey.dsn()) as used:
        await used.put("one", b"facts")
        with looking(valkey) as client:
            client.set(NAME, entry)
        assert await used.get("one") is None
        assert used.gets(Get.HIT) == 0
        assert refusal is None or used.misses() == {str(refusal): 1}
        await used.put("one", b"facts")
        assert await used.get("one") == b"facts"


async def test_an_entry_that_was_moved_is_a_miss(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        await used.put("two", b"facts of two")
        with looking(valkey) as client:
            client.rename(SEALER.name("two"), NAME)
        assert await used.get("one") is None
        assert used.misses() == {"forged": 1}


async def test_an_older_entry_of_the_same_root_comes_back(valkey: EmbeddedValkey) -> None:
    """Nobody here can tell: a Redis that was set back answers what was true. Admission by the stamp refuses it."""
    async with used_tier(valkey.dsn()) as used:
        await used.put("one", b"before")
        with looking(valkey) as client:
            older = client.get(NAME)
            await used.put("one", b"after")
            client.set(NAME, older)
        assert await used.get("one") == b"before"


async def test_a_value_of_another_kind_is_a_miss(valkey: EmbeddedValkey) -> None:
    async with used_tier(valkey.dsn()) as used:
        with looking(valkey) as client:
            client.rpush(NAME, b"a", b"list")
        assert await used.get("one") is None
        assert used.misses() == {"absent": 1}  # an MGET says so
