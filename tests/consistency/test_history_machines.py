"""What the hammer makes of answers about machines: each kind of answer that cannot be is found, by what the writes of machines
change and by what answers show of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lictor.license.v1 import validation_service_pb2 as pb
from lictor.machine.v1 import activation_service_pb2 as activation
from lictor.machine.v1.machine_pb2 import Lease, Machine, SeatGrant
from lictor.machine.v1.machine_service_pb2 import TransferMachineResponse

from tests.consistency import machine_hands as hands
from tests.consistency.checker import check
from tests.consistency.fleet import Fleet
from tests.consistency.hands import RESTRICTING
from tests.consistency.history import Kind, Read, Value, Write
from tests.consistency.machine_hands import Desk, end_of_lease
from tests.consistency.scene import PRINTS, Ledger, Scene, Seat, lease_line, license_value, print_line
from tests.consistency.sight import Beats, Code, Question, Seen, TornError, by_the_clock, shown
from tests.helpers.builders import METHODS, rules_of

LICENSE, POLICY, TIER = "lic_1", "pol_1", "tier_1"
LEASE_S = 0.25
ONE, OTHER = PRINTS
NOT_STARTED, ALIVE, DEAD = Beats.NOT_STARTED, Beats.ALIVE, Beats.DEAD


@dataclass
class Record:
    """Writes that take a second each, one every ten, from 10 on; the leases that it gives last for ten."""

    scene: Scene
    at: float = 0.0
    ids: count[int] = field(default_factory=lambda: count(1))

    async def write(
        self,
        request: Any,
        changes: Mapping[str, Value],
        *,
        born: Callable[[Any], Mapping[str, Value]] = lambda answer: {},
    ) -> Any:
        self.at += 10
        method = METHODS[request.DESCRIPTOR.full_name]
        answer = self.answer(request)
        for line, value in born(answer).items():
            self.scene.ledger.begin(line, None)
            changes = {**changes, line: value}
        restricting = rules_of(method).effect in RESTRICTING
        self.scene.ledger.writes.append(Write(method.name, self.at, self.at + 1, changes, restricting))
        self.scene.ledger.held.update(changes)
        return answer

    def answer(self, request: Any) -> Any:
        match request:
            case activation.ActivateMachineRequest():
                return activation.ActivateMachineResponse(machine=Machine(machine_id=f"mach_{next(self.ids)}"))
            case activation.AcquireSeatRequest():
                known = self.scene.machines.get((LICENSE, request.identity.fingerprint))
                machine = Machine(
                    machine_id=f"mach_{next(self.ids)}" if known is None else known.machine_id,
                    lease=Lease(epoch=next(self.ids), expire_time=Timestamp(seconds=int(self.at) + 10)),
                )
                return activation.AcquireSeatResponse(granted=SeatGrant(machine=machine))
            case _:
                return TransferMachineResponse(machine=Machine(machine_id=f"mach_{next(self.ids)}"))

    def read(self, begin: float, seen: Seen, lag_s: float = LEASE_S) -> list[Kind]:
        """What is wrong with an answer of a tenth of a second."""
        self.scene.ledger.reads.append(Read("answer", begin, begin + 0.1, seen, lag_s))
        return [one.kind for one in check(self.scene.ledger.history())]

    def sees(self, begin: float, answer: pb.ValidateLicenseResponse, **asked: str) -> list[Kind]:
        return self.read(begin, shown(question(**asked), answer, self.scene.ledger.initial))

    def machine(self, one: str) -> Seat:
        return self.scene.machines[LICENSE, one]


@pytest.fixture(name="record")
def _record() -> Record:
    ledger = Ledger(wall_s=0.0)
    scene = Scene(cast("Fleet", None), ledger, Random(1), LEASE_S, "acc_1", "key", "acc_2", "other key")
    ledger.begin(f"license:{LICENSE}", license_value(0, POLICY, TIER, ""))
    ledger.begin(f"policy:{POLICY}", {"grace": 0, "trial": False, "product": False, "policy": False, "user": False,
                                      "print": False, "beat": False})  # fmt: skip
    ledger.begin(f"seats:{LICENSE}", {"machines": 0, "cores": 0})
    for one in PRINTS:
        ledger.begin(print_line(LICENSE, one), None)
    return Record(scene)


def question(fingerprint: str = "", machine_id: str = "") -> Question:
    request = pb.ValidateLicenseRequest(machine_id=machine_id)
    return Question(request, "", LICENSE, "", "", "", fingerprint, LICENSE if machine_id else "")


def answer(
    machine_id: str = "",
    status: Beats.ValueType = NOT_STARTED,
    machines: int = 1,
    cores: int = 1,
    *codes: Code.ValueType,
) -> pb.ValidateLicenseResponse:
    """About a machine; without an id about none that there is, where it was asked for by its fingerprint."""
    found = list(codes)
    if not machine_id:
        found = [*([] if machines else [Code.NO_MACHINES]), *(found or [Code.FINGERPRINT_NOT_FOUND])]
    elif status == DEAD:
        found = [Code.HEARTBEAT_DEAD]
    return pb.ValidateLicenseResponse(
        license_id=LICENSE, policy_id=POLICY, tier_id=TIER, machine_id=machine_id,
        heartbeat_status=status if machine_id else Beats.STATUS_UNSPECIFIED,
        seats=pb.SeatCounts(machines=machines, cores=cores), valid=not found, code=(found or [Code.VALID])[0],
        all_codes=found or [Code.VALID],
    )  # fmt: skip


def desk(record: Record, one: str = ONE) -> Desk:
    return Desk(record.scene, record.write, LICENSE, one)


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
