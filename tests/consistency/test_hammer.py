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

ATTEMPTS: Final = 4
"""How often a broken safeguard may hide."""


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


@pytest.mark.parametrize(
    ("safeguard", "fault", "found"),
    [
        ("no_wait", None, {Kind.STALE}),
        ("no_eviction", None, {Kind.STALE}),
        ("no_lease", faults.bad_links, {Kind.STALE, Kind.LATE}),
        ("any_age", None, {Kind.STALE, Kind.LATE}),
        ("ahead", None, {Kind.MIXED}),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
async def test_without_a_safeguard_it_is_found(
    safeguard: str, fault: Fault | None, found: set[Kind], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise what is found with all of them would show nothing."""
    command = (sys.executable, "-m", "tests.consistency.spoiled", safeguard)
    with state_directory() as state, EmbeddedPostgres(state, durable=False) as postgres:
        async with fleet(postgres, tmp_path, ("grpcio",) * 3, (command,) * 3) as running:
            for attempt in range(ATTEMPTS):
                tally = await hammer(running, SEED + attempt, FOR_S / 2, fault)
                tell(f"without a safeguard, {safeguard}", tally, capsys)
                if any(tally.anomalies[kind] for kind in found):
                    return
    pytest.fail("the hammer does not find it")
