"""Once a call that takes rights away has returned OK, no validation that starts later, on any process, answers from the old
state; and each answer is the record at one moment. Several processes are hammered, and whatever happens, it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.consistency import faults
from tests.consistency.fleet import Fleet
from tests.consistency.hammer import Fault, Tally, hammer
from tests.consistency.scene import STAYS
from tests.consistency.staged import FOR_S, SEED, staged, tell
from tests.consistency.valkey_faults import VALKEY_FAULTS
from tests.helpers.serving import ops_get, samples

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

LEAST: Final = 100
"""Answers a second that a scenario must have had, faults and all; else it shows nothing."""
KINDS: Final = (STAYS, "api_key", "key", "session")
"""The lines of those who call: some of each get in, whatever is revoked meanwhile."""
WORKLOADS: Final = 2

OF_MACHINES: Final = (
    "ActivateMachine", "AcquireSeat", "RenewSeat", "ReleaseSeat", "EvictSeat", "HeartbeatMachine", "ResetMachineHeartbeat",
    "TransferMachine", "UpdateMachine", "DeactivateMachine", "HeartbeatProcess", "a lease is over",
)  # fmt: skip

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


def assert_fine(tally: Tally) -> None:
    assert tally.wrong == 0, "\n".join((*tally.examples, *tally.torn[:20]))
    assert tally.answers > LEAST * FOR_S
    assert tally.writes > 2 * FOR_S
    assert tally.machines > FOR_S
    assert min(tally.shown[line] for line in KINDS) > FOR_S
    assert not [what for what in tally.refusals if "INTERNAL" in what or "UNKNOWN" in what]


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_answer_is_stale_and_none_is_mixed(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with staged(tmp_path, workloads=WORKLOADS) as running:
        tally = await hammer(running, SEED, FOR_S, FAULTS[fault])
    tell(fault, tally, capsys)
    print("\n".join(f"{number:7} {what}" for what, number in tally.told.most_common()))
    assert_fine(tally)
    if fault == "undisturbed":
        assert tally.processes > FOR_S  # elsewhere few may start, or none
        assert not [what for what in OF_MACHINES if not tally.told[what]]
    assert tally.shown["workload"] > FOR_S


@pytest.mark.parametrize("fault", VALKEY_FAULTS)
async def test_facts_in_valkey_make_none_so(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with staged(tmp_path, with_valkey=True) as running:
        tally = await hammer(running, SEED, FOR_S, VALKEY_FAULTS[fault])
        used = await in_valkey(running)
    tell(f"{fault}, {used:.0f} found there", tally, capsys)
    assert_fine(tally)
    assert used


async def in_valkey(running: Fleet) -> float:
    """How many answers the processes that are there now have made of what was in Valkey."""
    found = 0.0
    for server in running.servers:
        text = (await ops_get(server.listen, "/metrics"))[1]
        found += sum(samples(text, "lictor_facts_from_redis_total").values())
    return found
