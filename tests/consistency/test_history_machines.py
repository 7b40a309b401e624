"""What the hammer makes of answers about machines: each kind of answer that cannot be is found, by what the writes of machines
change and by what answers show of it."""

from __future__ import annotations

import pytest

from tests.consistency import machine_hands as hands
from tests.consistency.history import Kind
from tests.consistency.machine_hands import end_of_lease
from tests.consistency.made_up import (
    ALIVE,
    DEAD,
    LICENSE,
    ONE,
    OTHER,
    Record,
    answer,
    desk,
    fresh,
    question,
)
from tests.consistency.scene import PRINTS, lease_line, print_line
from tests.consistency.sight import Beats, Code, Seen, TornError, by_the_clock, shown


@pytest.fixture(name="record")
def _record() -> Record:
    return fresh()


@pytest.mark.parametrize("way", ["evict", "deactivate", "release"])
async def test_a_machine_that_has_lost_its_seat_is_not_there(record: Record, way: str) -> None:
    """Who gives its own seat up may be seen for as long as the lease on facts lasts; from whom it is taken, may not."""
    here = desk(record)
    await hands.lease(here, hands.FOR_LONG, {}, ())
    machine = record.machine(ONE)
    before, after = answer(machine.machine_id, ALIVE), answer("", machines=0, cores=0)
    assert record.sees(15, before, fingerprint=ONE) == []
    await {"evict": hands.evict, "deactivate": hands.deactivate, "release": hands.release}[way](here, machine)
    assert record.sees(20.5, before, fingerprint=ONE) == []
    assert record.sees(22, after, fingerprint=ONE) == []
    gone = answer("", DEAD, 0, 0, Code.MACHINE_SCOPE_MISMATCH)
    assert record.sees(22.1, gone, machine_id=machine.machine_id) == []
    record.scene.ledger.reads.clear()
    taken = way != "release"
    assert record.sees(21.2, before, fingerprint=ONE) == ([Kind.STALE] if taken else [])
    record.scene.ledger.reads.clear()
    assert record.sees(23, before, machine_id=machine.machine_id) == [Kind.STALE if taken else Kind.LATE]


async def test_a_seat_that_was_passed_on_is_the_other_machines_alone(record: Record) -> None:
    here, there = desk(record), desk(record, OTHER)
    await hands.activate(here)
    before = record.machine(ONE)
    await hands.pass_on(there, before)
    after = record.machine(OTHER)
    assert (ONE in {shown for _, shown in record.scene.machines}, after.cores) == (False, before.cores)
    assert record.sees(22, answer(after.machine_id), fingerprint=OTHER) == []
    assert record.sees(22, answer(), fingerprint=ONE) == []
    record.scene.ledger.reads.clear()
    assert record.sees(22, answer(before.machine_id), fingerprint=ONE) == [Kind.STALE]
    record.scene.ledger.reads.clear()
    assert record.sees(22, answer(), fingerprint=OTHER) == [Kind.STALE]
    record.scene.ledger.reads.clear()
    both: Seen = {print_line(LICENSE, one): {"found": True} for one in PRINTS}
    assert record.read(20.1, both) == [Kind.MIXED]


async def test_heartbeats_that_began_anew_are_not_seen_as_before(record: Record) -> None:
    here = desk(record)
    await hands.activate(here)
    machine = record.machine(ONE)
    silent, alive = answer(machine.machine_id), answer(machine.machine_id, ALIVE)
    assert record.sees(15, silent, fingerprint=ONE) == []
    await hands.beat(here, machine)  # from 20 to 21
    assert record.sees(21.2, silent, fingerprint=ONE) == [], "who may do more than before may be seen late"
    assert record.sees(22, alive, machine_id=machine.machine_id) == []
    await hands.reset(here, machine)  # from 30 to 31
    assert record.sees(32, silent, fingerprint=ONE) == []
    for begin, one, kind in ((18, alive, Kind.FUTURE), (25, silent, Kind.LATE), (31.1, alive, Kind.STALE)):
        kept = list(record.scene.ledger.reads)
        assert record.sees(begin, one, fingerprint=ONE) == [kind], begin
        record.scene.ledger.reads[:] = kept


async def test_a_seat_that_is_leased_anew_is_the_same_machines(record: Record) -> None:
    here = desk(record)
    await hands.activate(here)
    machine = record.machine(ONE)
    await hands.lease_anew(here, machine)
    again = record.machine(ONE)
    assert (again.machine_id, again.cores) == (machine.machine_id, machine.cores)
    assert again.epoch > machine.epoch == 0
    assert record.sees(25, answer(machine.machine_id, ALIVE), fingerprint=ONE) == []
    assert record.sees(25, answer(machine.machine_id), fingerprint=ONE) == [Kind.LATE]


@pytest.mark.parametrize(
    ("begin", "status", "expected"),
    [
        (19.0, ALIVE, None),
        (19.5, DEAD, Kind.FUTURE),  # it ends at 20; answers from memory may be ahead by less than a lease on facts
        (19.7, DEAD, None),
        (19.95, ALIVE, None),
        (20.0, DEAD, None),
        (20.01, ALIVE, Kind.STALE),
        (29.0, DEAD, None),
    ],
)
async def test_a_lease_is_over_when_its_time_is(
    record: Record, begin: float, status: Beats.ValueType, expected: Kind | None
) -> None:
    here = desk(record)
    lease = await hands.lease(here, hands.FOR_LONG, {}, ())
    machine = record.machine(ONE)
    record.scene.ledger.writes.append(end_of_lease(record.scene, machine.machine_id, float(lease.expire_time.seconds)))
    one = answer(machine.machine_id, status)
    assert record.sees(begin, one, fingerprint=ONE) == [], "of the state nothing changes"
    over = by_the_clock(one, record.scene.ledger.initial)
    assert record.read(begin, over) == ([] if expected is None else [expected])


async def test_who_has_no_lease_never_loses_it(record: Record) -> None:
    await hands.activate(desk(record))
    machine = record.machine(ONE)
    assert lease_line(machine.machine_id) in record.scene.ledger.initial
    over = by_the_clock(answer(machine.machine_id, DEAD), record.scene.ledger.initial)
    assert record.read(15, over) == [Kind.NEVER]


def test_an_answer_that_contradicts_itself_is_torn() -> None:
    alive, dead = answer("mach_1", ALIVE), answer("mach_1", DEAD)
    dead.all_codes[:], dead.code, dead.valid = alive.all_codes, alive.code, alive.valid
    with pytest.raises(TornError, match="the machine is DEAD"):
        shown(question(fingerprint=ONE), dead, {})
