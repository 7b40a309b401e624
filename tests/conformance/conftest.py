"""The service on each transport, in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.conformance.client import Served, serving
from tests.helpers.serving import needs_envoy

TRANSPORTS = [pytest.param("grpcio"), pytest.param("envoy", marks=needs_envoy)]


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """A transport's name, one after the other."""
    return str(request.param)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served(transport: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """The service for all tests of a transport."""
    async with serving(transport, tmp_path_factory.mktemp(transport)) as running:
        yield running
