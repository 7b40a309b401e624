"""What several modules of these tests share."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest_asyncio

from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.plans import filled
from tests.helpers.record import Scratch


@pytest_asyncio.fixture(scope="session", loop_scope="session", name="many")
async def _many(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    """A record with 20,000 rows in every table, which takes seconds to make; nobody changes it."""
    async with filled(postgres) as made:
        yield made
