"""Without one of the safeguards of freshness the hammer finds bad answers: else what it finds with all of them shows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.consistency import faults
from tests.consistency.hammer import Fault, hammer
from tests.consistency.history import Kind
from tests.consistency.staged import FOR_S, SEED, staged, tell
from tests.consistency.valkey_faults import VALKEY_FAULTS

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ATTEMPTS: Final = 4
"""How often it may hide."""
OLD: Final = {Kind.STALE, Kind.LATE}


@pytest.mark.parametrize(
    ("safeguard", "fault", "signs"),
    [
        ("no_wait", None, {Kind.STALE}),
        ("no_eviction", None, {Kind.STALE}),
        ("callers_stay", None, {Kind.STALE}),
        ("machines_stay", None, {Kind.STALE}),
        ("no_lease", "bad_links", OLD),
        ("any_age", None, OLD),
        ("any_age", "valkey_is_set_back", OLD),
        ("ahead", None, {Kind.MIXED}),
        ("old_time", None, {Kind.EVALUATED, Kind.MIXED}),
        ("no_seal", "valkey_is_forged", {Kind.NEVER, Kind.STALE}),
    ],
    ids=lambda given: str(given) if not isinstance(given, set) else "",
)
async def test_it_is_found(
    safeguard: str, fault: str | None, signs: set[Kind], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known: dict[str | None, Fault | None] = {None: None, "bad_links": faults.bad_links, **VALKEY_FAULTS}
    async with staged(
        tmp_path, ("grpcio",) * 3, with_valkey=fault in VALKEY_FAULTS, without=safeguard, workloads=2
    ) as running:
        for attempt in range(ATTEMPTS):
            tally = await hammer(running, SEED + attempt, FOR_S / 2, known[fault])
            tell(f"without a safeguard, {safeguard}", tally, capsys)
            if any(tally.anomalies[kind] for kind in signs):
                return
    pytest.fail("the hammer does not find it")
