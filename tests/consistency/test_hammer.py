"""Once a call that takes rights away has returned OK, no validation that starts later, on any process, answers from the old
state; and each answer is the record at one moment. Several processes are hammered, and whatever happens, it holds.

    LICTOR_HAMMER_SEED=7 make test-long ARGS="-k hammer"    chooses as another run did; LICTOR_HAMMER_S is for how long each
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.serving import SERVE
from shared.rpc.envoy.program import obstacle
from tests.consistency import faults
from tests.consistency.fleet import Fleet, fleet
from tests.consistency.hammer import Fault, Tally, hammer
from tests.consistency.history import Kind
from tests.helpers.embedded import state_directory

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("LICTOR_HAMMER_SEED", time.time_ns() % 1_000_000))
FOR_S: Final = float(os.environ.get("LICTOR_HAMMER_S", "20"))
TRANSPORTS: Final = ("grpcio", "grpcio" if obstacle() else "envoy", "grpcio")
LEAST: Final = 100
"""Answers a second that a scenario must have had, faults and all; else it shows nothing."""


@pytest_asyncio.fixture(loop_scope="session", name="processes")
async def _processes(tmp_path: Path) -> AsyncGenerator[Fleet]:
    """Three, on a record of their own."""
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as postgres:
        async with fleet(postgres, tmp_path, TRANSPORTS) as running:
            yield running


def tell(name: str, tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nhammer {name}, LICTOR_HAMMER_SEED={SEED}: {tally.told()}")
    print("\n".join(f"{number:7} {what}" for what, number in tally.refusals.most_common()))


FAULTS: Final[dict[str, Fault | None]] = {
    "undisturbed": None,
    "processes_killed": faults.kill_processes,
    "processes_paused": faults.pause_processes,
    "connections_lost": faults.lose_connections,
    "bad_links": faults.bad_links,
    "backends_killed": faults.kill_backends,
    "postgres_crashes": faults.crash_postgres,
    "everything": faults.everything,
    "standby_promoted": faults.promote,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_answer_is_stale_and_none_is_mixed(
    fault: str, processes: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = await hammer(processes, SEED, FOR_S, FAULTS[fault])
    tell(fault, tally, capsys)
    assert tally.wrong == 0, "\n".join((*tally.examples, *tally.torn[:20]))
    assert tally.answers > LEAST * FOR_S
    assert tally.writes > 2 * FOR_S
    assert not [what for what in tally.refusals if "INTERNAL" in what or "UNKNOWN" in what]


async def spoiled(way: str, tmp_path: Path) -> Tally:
    """What is found where one of three is broken; the others are not blamed."""
    command = (sys.executable, "-m", "tests.consistency.spoiled", way)
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as postgres:
        async with fleet(postgres, tmp_path, TRANSPORTS, (SERVE, SERVE, command)) as running:
            tally = await hammer(running, SEED, FOR_S / 2)
    assert all("grpcio-2" in told for told in (*tally.examples, *tally.torn))
    return tally


async def test_a_process_that_answers_from_before_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = await spoiled("late", tmp_path)
    tell("of a process that answers from before", tally, capsys)
    assert tally.anomalies[Kind.STALE]


async def test_a_process_that_loads_in_two_steps_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = await spoiled("in_two", tmp_path)
    tell("of a process that loads in two steps", tally, capsys)
    assert tally.torn or tally.anomalies[Kind.MIXED]
    assert not tally.anomalies[Kind.STALE]
