"""A process of a machine is over, and gives its place up."""

from __future__ import annotations

from services.machine import process_store
from services.machine.commands.find_machine import find_machine
from services.machine.events import process_event
from services.machine.processes import Process
from shared.db.outbox import emit
from shared.db.pool import Transaction


async def end_process(tx: Transaction, *, actor: str, machine_id: str, name: str) -> Process | None:
    """The process as it was; None where there was none, as of a machine that has lost its seat. MACHINE_NOT_FOUND."""
    await find_machine(tx, machine_id)
    gone = await process_store.drop(tx, machine_id, name)
    if gone is not None:
        await emit(tx, process_event("process.deleted", gone, actor))
    return gone
