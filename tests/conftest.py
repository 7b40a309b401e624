"""Fixtures of every test: a Postgres and a running suite for the session, a fresh account for each test that asks."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs]

from shared.embedded import ports
from shared.embedded.ports import FREE_RANGE
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.embedded import state_directory
from tests.helpers.events import bad_events
from tests.helpers.record import OwnRecord, Scratch
from tests.helpers.serving import needs_envoy, serving
from tests.helpers.sharing import ByTransport
from tests.helpers.suite import Suite, World, counted_alone, running_suite

collect_ignore_glob = ["protos/*"]  # stubs, one of which is called test_service_...


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByTransport | None:
    """Shares the tests among the workers of `--dist loadfile`."""
    return ByTransport(config, log) if config.getoption("dist", "") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> None:
    """Tests that run side by side take their ports from ranges of their own: nothing else keeps two from one port."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = len(FREE_RANGE) // workers
    ports.FREE_RANGE = FREE_RANGE[worker * share : (worker + 1) * share]  # pyright: ignore[reportConstantRedefinition]


@pytest.fixture(scope="session")
def postgres() -> Generator[EmbeddedPostgres]:
    """A private Postgres for the whole session."""
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as server:
        yield server


@pytest_asyncio.fixture(
    scope="session", loop_scope="session", params=["grpcio", pytest.param("envoy", marks=needs_envoy)]
)
async def suite(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncGenerator[Suite]:
    """target=all: in this process on grpcio, and in a process of its own on envoy. Whoever asks for it runs on both."""
    folder: Path = tmp_path_factory.mktemp("suite")
    # Whatever else is started is on another record: even one that was killed takes no share of this one's rates.
    record = OwnRecord(Scratch(postgres, "suites"))
    if request.param == "grpcio":
        async with running_suite(record, folder) as running, counted_alone(running):
            yield running
            await refuse_bad_events(running)
    else:
        async with serving(record, folder) as served, counted_alone(served.suite):
            yield served.suite
            await refuse_bad_events(served.suite)


async def refuse_bad_events(suite: Suite) -> None:
    """Whatever the tests of a session made happen was told as the registry says."""
    async with suite.admin() as conn:
        assert await bad_events(conn) == []


@pytest_asyncio.fixture(loop_scope="session")
async def world(suite: Suite) -> AsyncGenerator[World]:
    """A fresh account with its clients."""
    async with suite.world() as fresh:
        yield fresh
