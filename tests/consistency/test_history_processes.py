"""What the hammer makes of answers about processes: it finds what cannot be, of how many run and of whether they are too many."""

from __future__ import annotations

import pytest

from tests.consistency import machine_hands as hands
from tests.consistency.history import Kind, Write
from tests.consistency.made_up import ALIVE, ONE, POLICY, Record, answer, desk, fresh, question
from tests.consistency.process_hands import end, start
from tests.consistency.scene import FEW
from tests.consistency.sight import TornError, shown


@pytest.fixture(name="record")
def _record() -> Record:
    return fresh()


async def with_two(record: Record) -> str:
    """A machine with two processes, of which the second starts from 30 to 31; more than the policy allows."""
    here = desk(record)
    await hands.activate(here)
    for _ in range(FEW + 1):
        await start(here, record.machine(ONE))
    return record.machine(ONE).machine_id


@pytest.mark.parametrize(
    ("begin", "processes", "most", "kind"),
    [
        (35.0, 2, FEW, None),
        (31.1, 1, None, None),
        (35.0, 1, None, Kind.LATE),
        (25.0, 2, FEW, Kind.FUTURE),
        (35.0, 3, FEW, Kind.NEVER),
        (35.0, 2, None, Kind.NEVER),
    ],
)
async def test_processes_are_those_that_run_and_too_many_if_they_are(
    record: Record, begin: float, processes: int, most: int | None, kind: Kind | None
) -> None:
    """Who starts takes no right from anybody, so an answer may be as old as the lease on facts. The policy is always the same."""
    one = answer(await with_two(record), processes=processes, most=most)
    assert record.sees(begin, one, fingerprint=ONE) == ([] if kind is None else [kind])


@pytest.mark.parametrize("way", ["deactivate", "end"])
async def test_processes_that_are_over_do_not_count(record: Record, way: str) -> None:
    machine_id = await with_two(record)
    here, machine, ends = desk(record), record.machine(ONE), way == "end"
    await (end(here, machine, min(machine.processes)) if ends else hands.deactivate(here, machine))  # from 40 to 41
    before = answer(machine_id, processes=2, most=FEW)
    after = answer(machine_id, processes=1) if ends else answer(machines=0, cores=0)
    left = answer(machines=0, cores=0, processes=2, most=FEW)
    for begin, one, kind in (
        (40.5, before, None), (42.0, after, None), (41.1, before, None if ends else Kind.STALE),
        (42.0, before, Kind.LATE if ends else Kind.STALE), (42.0, left, Kind.NEVER),
    ):  # fmt: skip
        record.scene.ledger.reads.clear()
        assert record.sees(begin, one, fingerprint=ONE) == ([] if kind is None else [kind]), begin


async def test_the_verdict_on_processes_is_of_one_state(record: Record) -> None:
    """The policy allows many before the second starts: no state has two, and allows few."""
    machine_id, policy, ledger = await with_two(record), f"policy:{POLICY}", record.scene.ledger
    ledger.writes.append(Write("UpdatePolicy", 24, 25, {policy: {**(ledger.held[policy] or {}), "few": False}}))
    one = answer(machine_id, processes=2, most=FEW)
    assert record.sees(35, one, fingerprint=ONE) == [Kind.LATE]
    ledger.reads.clear()
    assert record.read(30.5, shown(question(fingerprint=ONE), one, ledger.initial), lag_s=10) == [Kind.MIXED]


@pytest.mark.parametrize(("running", "taken", "most"), [(3, 2, FEW), (3, 4, FEW), (3, 3, 3), (3, 3, 2), (1, 1, FEW)])
def test_a_verdict_on_processes_that_contradicts_itself_is_torn(running: int, taken: int, most: int) -> None:
    one = answer("mach_1", ALIVE, processes=running, most=most)
    one.exceeded[0].taken = taken
    with pytest.raises(TornError, match="processes"):
        shown(question(fingerprint=ONE), one, {})


@pytest.mark.parametrize(("running", "most", "expected"), [
    (2, None, {}), (3, None, {"few": False}), (3, FEW, {"few": True, "each": False}), (3, 2 * FEW, {"few": True, "each": True}),
])  # fmt: skip
def test_what_a_verdict_shows_of_the_policy_of_two_machines(
    running: int, most: int | None, expected: dict[str, bool]
) -> None:
    one = answer("mach_1", ALIVE, machines=2, processes=running, most=most)
    policy = f"policy:{POLICY}"
    seen = shown(question(fingerprint=ONE), one, {policy: {}})[policy]
    assert {name: value for name, value in (seen or {}).items() if name in {"few", "each"}} == expected
