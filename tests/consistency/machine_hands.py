"""How the machines of licenses come, change and go while the processes are hammered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from google.protobuf.field_mask_pb2 import FieldMask
from lictor.common.v1.common_pb2 import LicenseSelector, MachineIdentity
from lictor.machine.v1 import activation_service_pb2 as activation
from lictor.machine.v1 import machine_service_pb2 as machines

from tests.consistency.history import Value
from tests.consistency.scene import PRINTS, Scene, print_line


class Write(Protocol):
    """As `Hands.write`."""

    def __call__(
        self,
        request: Any,
        changes: Mapping[str, Value],
        *,
        born: Callable[[Any], Mapping[str, Value]] = lambda answer: {},
    ) -> Awaitable[Any]: ...


async def change_machine(scene: Scene, write: Write, license_id: str) -> None:
    """A machine comes, changes or goes. Nobody else has to do with those of this license."""
    shown, cores = scene.random.choice(PRINTS), next(scene.numbers)
    line, of_all = print_line(license_id, shown), f"seats:{license_id}"
    has = {one: scene.machines[license_id, one] for one in PRINTS if (license_id, one) in scene.machines}
    machine_id, _ = has.get(shown, ("", 0))
    others = [number for one, (_, number) in has.items() if one != shown]
    if not machine_id:
        request: Any = activation.ActivateMachineRequest(
            license=LicenseSelector(license_id=license_id), identity=MachineIdentity(fingerprint=shown), cores=cores
        )
        made = await write(
            request,
            {line: {"found": True}, of_all: _seats([*others, cores])},
            born=lambda made: _new_machine(made, license_id, line),
        )
        if made is not None:
            scene.machines[license_id, shown] = made.machine.machine_id, cores
            scene.recent_machines.append((license_id, made.machine.machine_id))
    elif scene.random.random() < 0.4:
        request = machines.UpdateMachineRequest(
            machine_id=machine_id, cores=cores, update_mask=FieldMask(paths=["cores"])
        )
        if await write(request, {of_all: _seats([*others, cores])}) is not None:
            scene.machines[license_id, shown] = machine_id, cores
    else:
        request = machines.DeactivateMachineRequest(machine_id=machine_id)
        changes: dict[str, Value] = {line: None, f"machine:{machine_id}": None, of_all: _seats(others)}
        if await write(request, changes) is not None:
            del scene.machines[license_id, shown]


def _seats(cores: Sequence[int]) -> Value:
    """What machines with so many cores each are and have in all."""
    return {"machines": len(cores), "cores": sum(cores)}


def _new_machine(made: Any, license_id: str, line: str) -> Mapping[str, Value]:
    machine_id = made.machine.machine_id
    return {line: {"found": True, "machine": machine_id}, f"machine:{machine_id}": {"license": license_id}}
