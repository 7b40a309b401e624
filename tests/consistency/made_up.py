"""A made-up history of a license's machines: the writes of the hammer, and answers that are made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp
from lictor.license.v1 import validation_service_pb2 as pb
from lictor.machine.v1 import activation_service_pb2 as activation
from lictor.machine.v1.machine_pb2 import Lease, Machine, SeatGrant
from lictor.machine.v1.machine_service_pb2 import TransferMachineResponse

from tests.consistency.checker import check
from tests.consistency.desk import Desk
from tests.consistency.fleet import Fleet
from tests.consistency.hands import RESTRICTING
from tests.consistency.history import Kind, Read, Value, Write
from tests.consistency.scene import PRINTS, Ledger, Scene, Seat, license_value, print_line
from tests.consistency.sight import Beats, Code, Question, Seen, shown
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


def fresh() -> Record:
    """A license without machines, whose policy allows few processes."""
    ledger = Ledger(wall_s=0.0)
    scene = Scene(cast("Fleet", None), ledger, Random(1), LEASE_S, "acc_1", "key", "acc_2", "other key")
    ledger.begin(f"license:{LICENSE}", license_value(0, POLICY, TIER, ""))
    ledger.begin(f"policy:{POLICY}", {"grace": 0, "trial": False, "product": False, "policy": False, "user": False,
                                      "print": False, "beat": False, "few": True, "each": False})  # fmt: skip
    ledger.begin(f"seats:{LICENSE}", {"machines": 0, "cores": 0, "processes": 0})
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
    processes: int = 0,
    most: int | None = None,
) -> pb.ValidateLicenseResponse:
    """About a machine; without an id about none that there is, where it was asked for by its fingerprint. With `most` it says
    that no more processes than those are allowed."""
    found = list(codes)
    if not machine_id:
        found = [*([] if machines else [Code.NO_MACHINES]), *(found or [Code.FINGERPRINT_NOT_FOUND])]
    elif status == DEAD:
        found = [Code.HEARTBEAT_DEAD]
    found += [] if most is None else [Code.TOO_MANY_PROCESSES]
    exceeded = [] if most is None else [pb.ExceededLimit(code=Code.TOO_MANY_PROCESSES, taken=processes, limit=most)]
    return pb.ValidateLicenseResponse(
        license_id=LICENSE, policy_id=POLICY, tier_id=TIER, machine_id=machine_id,
        heartbeat_status=status if machine_id else Beats.STATUS_UNSPECIFIED,
        seats=pb.SeatCounts(machines=machines, cores=cores, processes=processes), exceeded=exceeded,
        valid=not found, code=(found or [Code.VALID])[0],
        all_codes=found or [Code.VALID],
    )  # fmt: skip


def desk(record: Record, one: str = ONE) -> Desk:
    return Desk(record.scene, record.write, LICENSE, one)
