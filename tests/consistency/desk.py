"""What a writer knows of the machines of a license while the processes are hammered, and what its writes make of their lines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity

from tests.consistency.history import Value
from tests.consistency.scene import PRINTS, Scene, Seat, lease_line, print_line


class Write(Protocol):
    """As `Hands.write`."""

    def __call__(
        self,
        request: Any,
        changes: Mapping[str, Value],
        *,
        born: Callable[[Any], Mapping[str, Value]] = lambda answer: {},
    ) -> Awaitable[Any]: ...


@dataclass(frozen=True)
class Desk:
    """The machine with one of the fingerprints, of a license that nobody else sees to."""

    scene: Scene
    write: Write
    license_id: str
    shown: str

    @property
    def line(self) -> str:
        return print_line(self.license_id, self.shown)

    @property
    def seat(self) -> Seat | None:
        return self.scene.machines.get((self.license_id, self.shown))

    @property
    def other(self) -> Desk:
        return Desk(self.scene, self.write, self.license_id, next(one for one in PRINTS if one != self.shown))

    def selected(self) -> dict[str, Any]:
        return {
            "license": LicenseSelector(license_id=self.license_id),
            "identity": MachineIdentity(fingerprint=self.shown),
        }

    def seats(self, *taken: tuple[int, int]) -> Mapping[str, Value]:
        """What machines with so many cores and processes each are and have in all."""
        cores, processes = (sum(one) for one in zip(*taken, strict=True)) if taken else (0, 0)
        return {f"seats:{self.license_id}": {"machines": len(taken), "cores": cores, "processes": processes}}

    def beside(self) -> list[tuple[int, int]]:
        """What the other machine takes, where there is one."""
        return [] if self.other.seat is None else [self.other.seat.takes]

    def beating(self, seat: Seat, status: str) -> Mapping[str, Value]:
        held = self.scene.ledger.held
        return {line: {**(held[line] or {}), "beats": status} for line in (self.line, f"machine:{seat.machine_id}")}

    def gone(self, seat: Seat) -> Mapping[str, Value]:
        return {self.line: None, f"machine:{seat.machine_id}": None}

    def take(self, machine: Any, cores: int, processes: frozenset[str] = frozenset()) -> None:
        """The machine has the seat, by what it was told."""
        scene, machine_id = self.scene, machine.machine_id
        if lease_line(machine_id) not in scene.ledger.initial:
            scene.ledger.begin(lease_line(machine_id), {"over": False})
            scene.recent_machines.append((self.license_id, machine_id))
        self.now_is(Seat(machine_id, cores, machine.lease.epoch, processes))

    def now_is(self, seat: Seat) -> None:
        self.scene.machines[self.license_id, self.shown] = seat

    def leave(self) -> None:
        del self.scene.machines[self.license_id, self.shown]
