"""A record for each module of scripted interleavings."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest_asyncio

from shared.embedded.postgres import EmbeddedPostgres
from tests.consistency.stage import Cast, acting
from tests.helpers.record import Scratch, scratch


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="db")
async def _db(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session", name="cast")
async def _cast(db: Scratch) -> AsyncGenerator[Cast]:
    """An account with an active license."""
    async with acting(db) as made:
        yield made
