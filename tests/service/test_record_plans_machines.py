"""Heartbeats, and what becomes of machines, stay fast with many rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.machine import beat_store, due_store, process_due, process_store, seat_store
from services.machine import store as machine_store
from shared.db.pool import POINT_READS
from shared.db.roles import Role
from tests.helpers.plans import LARGE, TIME, plan_of, refuse_full_reads
from tests.helpers.record import Scratch, enter

MACHINES = ([LARGE.account_id] * 3, ["LIVE"] * 3, ["mach_1", "mach_2", "mach_3"])
PROCESSES = (*MACHINES, ["p1", "p2", "p3"])
OF_MACHINES: dict[str, tuple[Any, ...]] = {
    "what machines live under": (
        Role.FACTS, beat_store.LOAD, MACHINES, "machine.machine", "license.license", "license.policy",
    ),
    "seats": (Role.MACHINE, seat_store.OPEN_SEATS, (LARGE.account_id, "LIVE", "lic_1"), "machine.seat"),
    "who is known": (
        Role.MACHINE, machine_store.KNOWN_BY, (LARGE.account_id, "LIVE", "lic_1", [b"hash"], "lic_1"), "machine.machine",
        "machine.fingerprint", "machine.component", "machine.beat",
    ),
    "beats that nobody holds": (Role.MACHINE_WORKER, beat_store.HOLD, MACHINES, "machine.beat"),
    "beats": (
        Role.MACHINE_WORKER, beat_store.TAKE, (*MACHINES, [timedelta(1)] * 3), "machine.beat", "machine.machine",
    ),
    "machines that are due": (Role.MACHINE_WORKER, due_store.CLAIM, (200,), "machine.beat"),
    "machines": (
        Role.MACHINE_WORKER, machine_store.GET_MACHINES, (LARGE.account_id, "LIVE", ["mach_1", "mach_2"]), "machine.machine",
        "machine.beat", "machine.fingerprint", "machine.component",
    ),
    "processes that nobody holds": (Role.MACHINE_WORKER, beat_store.HOLD_PROCESSES, PROCESSES, "machine.process"),
    "beats of processes": (
        Role.MACHINE_WORKER, beat_store.TAKE_PROCESSES, (*PROCESSES, [timedelta(1)] * 3), "machine.process", "machine.beat",
    ),
    "processes that are due": (Role.MACHINE_WORKER, process_due.CLAIM, (200,), "machine.process"),
    "when to look at processes": (
        Role.MACHINE_WORKER, process_due.LOOK_NEXT, (LARGE.account_id, "LIVE", ["mach_1"], ["mproc_1"], [TIME]),
        "machine.process",
    ),
    "the end of dead processes": (
        Role.MACHINE_WORKER, process_store.DROP_MANY, (LARGE.account_id, "LIVE", ["mach_1"], ["mproc_1"]), "machine.process",
    ),
    "when to look": (
        Role.MACHINE_WORKER, due_store.LOOK_NEXT, (LARGE.account_id, "LIVE", ["mach_1"], [TIME]), "machine.beat",
    ),
}  # fmt: skip
OF_LISTS = {"Function Scan", "Sort", "ModifyTable", "CTE Scan", "Unique"}
"""Nodes that work on what the caller names, or on what was found through an index."""
INDEXES = {"machines that are due": "beat_due", "processes that are due": "process_due"}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", OF_MACHINES)
async def test_heartbeats_and_what_becomes_of_machines_go_through_indexes(many: Scratch, name: str, mode: str) -> None:
    role, statement, values, *tables = OF_MACHINES[name]
    async with many.connect(role) as conn, conn.transaction():
        for setting, value in POINT_READS.items() if role is Role.FACTS else ():
            await conn.execute(f"SET LOCAL {setting} = {value}")
        found = await plan_of(conn, statement, values, mode)
    refuse_full_reads([node for node in found if node["Node Type"] not in OF_LISTS], *tables)
    if name in INDEXES:
        assert INDEXES[name] in {node.get("Index Name") for node in found}


OF_PROCESSES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a process": (process_store.HOLD, ("mach_1", "p1")),
    "a beat": (process_store.BEAT, ("mach_1", "mproc_1", TIME)),
    "an end": (process_store.DROP, ("mach_1", "p1")),
    "the end of a machine's": (machine_store.DROP_PROCESSES, ("mach_1",)),
    "the end of a machine's dead": (process_store.DROP_DEAD_OF_MACHINE, ("mach_1", TIME)),
    "the end of a license's dead": (process_store.DROP_DEAD_OF_LICENSE, ("lic_1", TIME, "cus_1")),
    "a machine's": (process_store.COUNT_OF_MACHINE, ("mach_1", TIME)),
    "a user's": (process_store.COUNT_OF_LICENSE, ("lic_1", TIME, "cus_1")),
    "a page": (process_store.PAGE, ("mproc_5", 51, "lic_1", TIME, "mach_1", "cus_1")),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", OF_PROCESSES)
async def test_processes_of_a_tenant_are_found_through_indexes(many: Scratch, name: str, mode: str) -> None:
    statement, values = OF_PROCESSES[name]
    async with many.connect(Role.MACHINE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", *values), mode)
    refuse_full_reads([node for node in found if node["Node Type"] not in OF_LISTS], "machine.process")
