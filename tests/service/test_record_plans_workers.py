"""What workers and operators read stays fast with many rows: no statement reads a table from end to end."""

from __future__ import annotations

import pytest

from services.license import (
    activation_store,
    boundary_store,
    customer_session_store,
    mark_store,
    store,
    workload_store,
)
from shared.db.roles import Role
from shared.tenancy import OPERATOR_TENANT
from tests.helpers.plans import LARGE, TIME, plan_of, refuse_full_reads
from tests.helpers.record import Scratch, enter

OPERATORS = {
    "a binding": (workload_store.GET, ("wlb_7",)),
    "a binding by external id": (workload_store.GET_BY_EXTERNAL_ID, ("x7",)),
    "bindings": (workload_store.PAGE, ("wlb_5", 51)),
    "an account's bindings": (workload_store.PAGE_OF_AN_ACCOUNT, ("wlb_5", 51, LARGE.account_id)),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", OPERATORS)
async def test_an_operators_reads_of_bindings_go_through_indexes(many: Scratch, name: str, mode: str) -> None:
    statement, values = OPERATORS[name]
    async with many.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, OPERATOR_TENANT)
        found = await plan_of(conn, statement, values, mode)
    refuse_full_reads(found, "license.workload_binding")


MANY = ([LARGE.account_id] * 3, ["LIVE"] * 3, ["lic_1", "lic_2", "lic_3"])
MARKS = (*MANY, [TIME] * 3)
WORKERS = {
    "licenses that are due": (boundary_store.CLAIM, (100,), ("license.boundary", "license.license")),
    "licenses of a policy": (
        boundary_store.LOOK_AGAIN, (LARGE.account_id, "LIVE", "pol_7", "lic_1", 500), ("license.license", "license.boundary"),
    ),
    "licenses": (store.GET_LICENSES_ACROSS, MANY, ("license.license", "license.policy", "license.license_usage")),
    "first machines": (
        activation_store.GET_FIRST, (LARGE.account_id, "LIVE", ["lic_1", "lic_2"]), ("machine.seat",),
    ),
    "marks": (mark_store.MARK, MARKS, ("license.license",)),
    "unseen licenses": (mark_store.HOLD_UNSEEN, MARKS, ("license.license", "license.license_usage")),
    "first marks": (mark_store.MARK_FIRST, MARKS, ("license.license_usage",)),
}  # fmt: skip
OF_LISTS = {"Function Scan", "Sort", "ModifyTable", "CTE Scan"}
"""Nodes that work on what the caller names, or on what was found through an index."""


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", WORKERS)
async def test_the_workers_read_what_is_due_or_named_and_nothing_else(many: Scratch, name: str, mode: str) -> None:
    statement, values, tables = WORKERS[name]
    async with many.connect(Role.LICENSE_WORKER) as conn, conn.transaction():
        found = await plan_of(conn, statement, values, mode)
    refuse_full_reads([node for node in found if node["Node Type"] not in OF_LISTS], *tables)
    if name == "licenses that are due":
        assert "boundary_due" in {node.get("Index Name") for node in found}


async def test_the_worker_takes_the_first_of_the_policies_that_wait(many: Scratch) -> None:
    async with many.connect(Role.LICENSE_WORKER) as conn, conn.transaction():
        found = await plan_of(conn, boundary_store.CLAIM_RECHECK, (), "generic")
    assert [node["Node Type"] for node in found] == ["Limit", "LockRows", "Index Scan"]
    assert found[-1]["Index Name"] == "boundary_recheck_order"


async def test_the_sweep_goes_by_age(many: Scratch) -> None:
    old = "SELECT ctid FROM record.request WHERE created_at < now() - interval '24 hours' ORDER BY created_at LIMIT $1"
    async with many.connect(Role.LICENSE_WORKER) as conn, conn.transaction():
        found = await plan_of(conn, old + " FOR UPDATE SKIP LOCKED", (1000,), "generic")
    refuse_full_reads(found, "record.request")
    assert "request_created_at" in {node.get("Index Name") for node in found}


async def test_the_sweep_of_sessions_goes_by_their_end(many: Scratch) -> None:
    async with many.connect(Role.LICENSE_WORKER) as conn, conn.transaction():
        found = await plan_of(conn, customer_session_store.OVER, (1000,), "generic")
    refuse_full_reads(found, "license.customer_session")
    assert "customer_session_expires_at" in {node.get("Index Name") for node in found}


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_a_customers_sessions_are_ended_through_an_index(many: Scratch, mode: str) -> None:
    async with many.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        arguments = (LARGE.account_id, "LIVE", "cus_7")
        found = await plan_of(conn, customer_session_store.DELETE_OF_CUSTOMER, arguments, mode)
    refuse_full_reads([node for node in found if node["Node Type"] != "ModifyTable"], "license.customer_session")
