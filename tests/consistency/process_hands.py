"""How the processes of machines start, beat and end while the processes that serve are hammered.

No name comes twice. Heartbeats are not told apart, so one that nobody answered may start its process at any time: the next that
its writer does is to deactivate the machine (`Scene.unsure`), which none can start on then.
"""

from __future__ import annotations

from dataclasses import replace

from lictor.machine.v1.activation_service_pb2 import HeartbeatProcessRequest

from tests.consistency.desk import Desk
from tests.consistency.scene import Seat


async def change_process(desk: Desk, seat: Seat) -> None:
    """One starts, beats or ends."""
    running, draw = sorted(seat.processes), desk.scene.random.random()
    if not running or draw < 0.65:
        await start(desk, seat)
    elif draw < 0.9:
        await end(desk, seat, desk.scene.random.choice(running))
    else:
        await _write(desk, seat, seat, desk.scene.random.choice(running))


async def start(desk: Desk, seat: Seat) -> None:
    """Another process; it may find no place."""
    name = f"process {next(desk.scene.numbers)}"
    await _write(desk, seat, replace(seat, processes=seat.processes | {name}), name)


async def end(desk: Desk, seat: Seat, name: str) -> None:
    """It gives its place up."""
    await _write(desk, seat, replace(seat, processes=seat.processes - {name}), name, ended=True)


async def _write(desk: Desk, seat: Seat, after: Seat, name: str, *, ended: bool = False) -> None:
    request = HeartbeatProcessRequest(machine_id=seat.machine_id, name=name, ended=ended)
    changes, writes = desk.seats(*desk.beside(), after.takes), desk.scene.ledger.writes
    first = len(writes)
    if await desk.write(request, changes) is not None:
        desk.now_is(after)
    if any(one.end is None and one.changes is changes for one in writes[first:]):
        desk.scene.unsure.add(seat.machine_id)
