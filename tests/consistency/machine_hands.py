"""How the machines of licenses come, beat, change, pass their seats on and go while the processes are hammered.

A lease that nobody renews is over at a time that is known beforehand. Answers go by the clock there, and not by the state that
they are made of, so that has a line of its own (`lease_line`), which only time writes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from lictor.common.v1.common_pb2 import MachineIdentity
from lictor.machine.v1 import activation_service_pb2 as activation
from lictor.machine.v1 import machine_service_pb2 as machines

from tests.consistency.desk import Desk, Write
from tests.consistency.history import Value
from tests.consistency.history import Write as Written
from tests.consistency.process_hands import change_process, start
from tests.consistency.scene import CLOCK_S, PRINTS, Scene, Seat, lease_line, now

FOR_LONG: Final = Duration(seconds=3600)
SHORT_S: Final = 10
"""The shortest lease that there is."""
MAY_BE_OVER: Final = "a lease may be over"
"""What time does where nobody was told until when a lease was renewed."""
RENEWED_S: Final = 3.0
MACHINES_CHANGE: Final = 0.2
OVER_FOR_S: Final = 0.5
"""After the end of a lease, until somebody comes for the seat: nobody can be in doubt any more whether it is over."""


async def change_machine(scene: Scene, write: Write, license_id: str) -> None:
    """A machine comes, changes or goes. Nobody else has to do with those of this license."""
    desk = Desk(scene, write, license_id, scene.random.choice(PRINTS))
    if await _out_of_doubt(desk):
        return
    seat, other = desk.seat, desk.other.seat
    if seat is None:
        if other is not None and scene.random.random() < 0.3:
            await pass_on(desk, other)
        elif scene.random.random() < 0.5:
            await activate(desk)
        else:
            await lease(desk, FOR_LONG, {}, desk.beside())
        return
    steps: list[Callable[[Desk, Seat], Awaitable[None]]] = [
        update,
        beat,
        beat,
        reset,
        lease_anew,
        deactivate,
        change_process,
    ]
    if seat.epoch:
        steps += [renew, release, evict]
    await scene.random.choice(steps)(desk, seat)


async def change_processes(scene: Scene, write: Write, license_id: str) -> None:
    """The same, where processes start and end more often than machines change."""
    desk = Desk(scene, write, license_id, scene.random.choice(PRINTS))
    if desk.seat is None or scene.random.random() < MACHINES_CHANGE:
        await change_machine(scene, write, license_id)
    elif not await _out_of_doubt(desk):
        await change_process(desk, desk.seat)


async def _out_of_doubt(desk: Desk) -> bool:
    """Deactivates a machine of the license whose processes nobody knows; no start that is still on its way can come to pass
    then. Whether there was one."""
    for one in (desk, desk.other):
        if one.seat is not None and one.seat.machine_id in desk.scene.unsure:
            await deactivate(one, one.seat)
            return True
    return False


def _born(desk: Desk, machine: Any, status: str) -> Mapping[str, Value]:
    known = {"found": True, "beats": status, "machine": machine.machine_id}
    return {desk.line: known, f"machine:{machine.machine_id}": {"license": desk.license_id, "beats": status}}


async def activate(desk: Desk) -> None:
    cores = next(desk.scene.numbers)
    request = activation.ActivateMachineRequest(**desk.selected(), cores=cores)
    changes = {desk.line: {"found": True, "beats": "NOT_STARTED"}, **desk.seats(*desk.beside(), (cores, 0))}
    made = await desk.write(request, changes, born=lambda made: _born(desk, made.machine, "NOT_STARTED"))
    if made is not None:
        desk.take(made.machine, cores)


async def lease(desk: Desk, ttl: Duration, also: Mapping[str, Value], beside: Sequence[tuple[int, int]]) -> Any:
    """A lease for a machine that has none. `also` is what this makes of others, and `beside` is what those take that stay."""
    cores = next(desk.scene.numbers)
    request = activation.AcquireSeatRequest(**desk.selected(), cores=cores, ttl=ttl)
    changes = {**also, desk.line: {"found": True, "beats": "ALIVE"}, **desk.seats(*beside, (cores, 0))}
    made = await desk.write(request, changes, born=lambda made: _born(desk, made.granted.machine, "ALIVE"))
    if made is None:
        return None
    desk.take(made.granted.machine, cores)
    return made.granted.machine.lease


async def pass_on(desk: Desk, before: Seat) -> None:
    """The seat of the other machine, which is activated from then on, whatever it was; its processes are over."""
    request = machines.TransferMachineRequest(
        machine_id=before.machine_id, identity=MachineIdentity(fingerprint=desk.shown)
    )
    changes = {
        **desk.other.gone(before),
        desk.line: {"found": True, "beats": "NOT_STARTED"},
        **desk.seats((before.cores, 0)),
    }
    made = await desk.write(request, changes, born=lambda made: _born(desk, made.machine, "NOT_STARTED"))
    if made is not None:
        desk.other.leave()
        desk.take(made.machine, before.cores)


async def update(desk: Desk, seat: Seat) -> None:
    cores = next(desk.scene.numbers)
    mask = FieldMask(paths=["cores"])
    request = machines.UpdateMachineRequest(machine_id=seat.machine_id, cores=cores, update_mask=mask)
    after = replace(seat, cores=cores)
    if await desk.write(request, desk.seats(*desk.beside(), after.takes)) is not None:
        desk.now_is(after)


async def beat(desk: Desk, seat: Seat) -> None:
    request = activation.HeartbeatMachineRequest(machine_id=seat.machine_id)
    await desk.write(request, desk.beating(seat, "ALIVE"))


async def reset(desk: Desk, seat: Seat) -> None:
    request = machines.ResetMachineHeartbeatRequest(machine_id=seat.machine_id)
    await desk.write(request, desk.beating(seat, "NOT_STARTED"))


async def lease_anew(desk: Desk, seat: Seat) -> None:
    """The machine keeps its seat, by a lease from now on, whatever it had; who had the lease before has lost it."""
    request = activation.AcquireSeatRequest(**desk.selected(), ttl=FOR_LONG)
    made = await desk.write(request, desk.beating(seat, "ALIVE"))
    if made is not None:
        assert made.granted.machine.machine_id == seat.machine_id
        desk.take(made.granted.machine, seat.cores, seat.processes)


async def renew(desk: Desk, seat: Seat) -> None:
    """Nothing that anybody sees before the lease would have been over."""
    request = activation.RenewSeatRequest(machine_id=seat.machine_id, epoch=seat.epoch, ttl=FOR_LONG)
    await desk.write(request, {})


async def release(desk: Desk, seat: Seat) -> None:
    request = activation.ReleaseSeatRequest(machine_id=seat.machine_id, epoch=seat.epoch)
    await _end(desk, seat, request)


async def evict(desk: Desk, seat: Seat) -> None:
    await _end(desk, seat, machines.EvictSeatRequest(machine_id=seat.machine_id))


async def deactivate(desk: Desk, seat: Seat) -> None:
    await _end(desk, seat, machines.DeactivateMachineRequest(machine_id=seat.machine_id))


async def _end(desk: Desk, seat: Seat, request: Any) -> None:
    if await desk.write(request, {**desk.gone(seat), **desk.seats(*desk.beside())}) is not None:
        desk.leave()


async def let_leases_end(
    scene: Scene, write: Write, license_id: str, pause: Callable[[float], Awaitable[None]]
) -> None:
    """A lease that is the only one of its license, sometimes renewed once, until it is over. Its machine keeps the seat until
    somebody else comes for one: that is the next round. `pause` waits, though not past the end of all."""
    desk = Desk(scene, write, license_id, scene.random.choice(PRINTS))
    before: dict[str, Value] = {}
    for one in (desk, desk.other):
        before |= {} if one.seat is None else one.gone(one.seat)
    granted = await lease(desk, Duration(seconds=SHORT_S), before, beside=())
    if granted is None:
        await pause(OVER_FOR_S)
        return
    if desk.other.seat is not None:
        desk.other.leave()
    seat = desk.seat
    assert seat is not None
    scene.dying.add(seat.machine_id)
    await start(desk, seat)  # it has its place until somebody comes for the seat
    over = _over(scene, granted)
    if scene.random.random() < 0.5:
        await pause(RENEWED_S)
        ttl = Duration(seconds=SHORT_S)
        request = activation.RenewSeatRequest(machine_id=seat.machine_id, epoch=seat.epoch, ttl=ttl)
        renewed = await write(request, {})
        if renewed is None:  # refused, or nobody was told until when it lasts
            changes: Mapping[str, Value] = {lease_line(seat.machine_id): {"over": True}}
            scene.ledger.writes.append(Written(MAY_BE_OVER, over - _early(scene), None, changes))
            await pause(SHORT_S + OVER_FOR_S)
            return
        over = _over(scene, renewed.lease)
    scene.ledger.writes.append(end_of_lease(scene, seat.machine_id, over))
    await pause(max(0.0, over - now()) + OVER_FOR_S)


def _over(scene: Scene, lease: Any) -> float:
    """When a lease is over, by the clock that all processes share."""
    return lease.expire_time.ToNanoseconds() / 1e9 - scene.ledger.wall_s


def end_of_lease(scene: Scene, machine_id: str, over: float) -> Written:
    """What time does to a lease: no answer that begins after that says that it lasts. Answers from memory may be ahead of the
    record by what a poll takes, which is less than a lease on facts."""
    changes: Mapping[str, Value] = {lease_line(machine_id): {"over": True}}
    return Written("a lease is over", over - _early(scene), over + 2 * CLOCK_S, changes, restricting=True)


def _early(scene: Scene) -> float:
    return scene.lease_s + CLOCK_S
