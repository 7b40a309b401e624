"""What callers read stays fast with many rows: no statement reads a table from end to end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.license import (
    account_store,
    activation_store,
    catalog_store,
    customer_session_store,
    customer_store,
    event_store,
    file_store,
    key_store,
    signing_key_store,
    store,
    tier_store,
    watch_store,
    workload_store,
)
from services.license.model import Status
from services.license.watch_marks import Group, Narrowed
from services.machine import file_store as machine_file_store
from shared.db.pool import POINT_READS
from shared.db.roles import Role
from tests.helpers.plans import A_LICENSE, INDEX_SCANS, KEY_HASHES, LARGE, TIME, plan_of, refuse_full_reads
from tests.helpers.record import Scratch, enter

FILTERS = {
    "all": store.LicenseFilter(),
    "product": store.LicenseFilter(product_id="prod_7"),
    "policy": store.LicenseFilter(policy_id="pol_7"),
    "customer": store.LicenseFilter(customer_id="cus_7"),
    "tier": store.LicenseFilter(tier_id="tier_7"),
    "email": store.LicenseFilter(customer_email="7@x.test"),
    "everything": store.LicenseFilter("prod_7", "pol_7", "cus_7", "7@x.test", "tier_7", Status.ACTIVE),
    **{f"status {status}": store.LicenseFilter(status=status) for status in Status if status is not Status.EXPIRED},
}
"""Not the expired ones: which they are is a matter of the time, so they are looked for among all active ones."""


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", FILTERS)
async def test_pages_of_licenses_are_read_through_indexes(many: Scratch, name: str, mode: str) -> None:
    statement, values = store.page_of_licenses_statement(FILTERS[name])
    async with many.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", "lic_5", 51, *values), mode)
    more = ["license.customer"] if FILTERS[name].customer_email else []
    refuse_full_reads(found, *A_LICENSE, *more)


GROUP = Group("customer_id", "cus_7")
WATCHED = {
    "all": (Narrowed(), None),
    "a product": (Narrowed(product_id="prod_7"), None),
    "a policy": (Narrowed(policy_id="pol_7"), None),
    "a product and a policy": (Narrowed("prod_7", "pol_7"), None),
    "a customer that changed": (Narrowed(), GROUP),
    "a customer that changed, of a product and a policy": (Narrowed("prod_7", "pol_7"), GROUP),
    "the policy itself that changed": (Narrowed(policy_id="pol_7"), Group("policy_id", "pol_7")),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", WATCHED)
async def test_what_streams_follow_is_found_through_indexes(many: Scratch, name: str, mode: str) -> None:
    statement, values = watch_store.page_statement(*WATCHED[name])
    async with many.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", "lic_5", 100, *values), mode)
    refuse_full_reads(found, "license.license")


async def test_what_has_changed_since_is_read_through_the_index_of_transactions(many: Scratch) -> None:
    async with many.connect(Role.FACTS) as conn, conn.transaction():
        for setting, value in POINT_READS.items():
            await conn.execute(f"SET LOCAL {setting} = {value}")
        arguments = ("100:200:150", 20_000, "acc_1/TEST/")
        found = await plan_of(conn, watch_store.CHANGED_SINCE, arguments, "generic")
    reads = [node for node in found if node.get("Relation Name") == "change_log"]
    assert len(reads) == 2
    assert {node["Node Type"] for node in reads} <= INDEX_SCANS


CUSTOMERS = {
    "all": customer_store.CustomerFilter(),
    "email": customer_store.CustomerFilter(email="7@x.test"),
    "subject_ref": customer_store.CustomerFilter(subject_ref="s7"),
    "banned": customer_store.CustomerFilter(banned=True),
    "not banned": customer_store.CustomerFilter(banned=False),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", CUSTOMERS)
async def test_pages_of_customers_are_read_through_indexes(many: Scratch, name: str, mode: str) -> None:
    statement, values = customer_store.page_statement(CUSTOMERS[name])
    async with many.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", "cus_5", 51, *values), mode)
    if name in {"email", "subject_ref"}:  # what is put in order is the one row that the name finds
        found = [node for node in found if node["Node Type"] != "Sort"]
    refuse_full_reads(found, "license.customer")
    if name == "banned":
        assert "customer_banned" in {node.get("Index Name") for node in found}


OTHERS: dict[str, tuple[Any, ...]] = {
    "products": (catalog_store.PAGE_OF_PRODUCTS, ("prod_5", 51), "license.product"),
    "policies": (catalog_store.PAGE_OF_POLICIES, ("pol_5", 51), "license.policy"),
    "a product's policies": (catalog_store.PAGE_OF_PRODUCTS_POLICIES, ("pol_5", 51, "prod_7"), "license.policy"),
    "tiers": (tier_store.PAGE, ("tier_5", 51), "license.tier"),
    "a product's tiers": (tier_store.PAGE_OF_A_PRODUCT, ("tier_5", 51, "prod_7"), "license.tier"),
    "API keys": (account_store.PAGE_OF_KEYS, ("key_5", 51), "license.api_key"),
    "a locked binding": (workload_store.LOCK, ("wlb_7",), "license.workload_binding"),
    "a license": (store.GET_LICENSE, ("lic_7",), *A_LICENSE),
    "a license by external id": (store.GET_LICENSE_BY_EXTERNAL_ID, ("x7",), *A_LICENSE),
    "a license's machines": (activation_store.GET, ("lic_7",), "machine.seat"),
    "machines under a policy": (activation_store.ANY_UNDER_POLICY, ("pol_7",), "license.license", "machine.seat"),
    "a locked license": (store.LOCK_LICENSE, ("lic_7",), "license.license"),
    "a key": (key_store.FIND, (KEY_HASHES,), "license.license_key"),
    "a sealed key": (key_store.GET_SEALED, ("lic_7",), "license.license_key"),
    "keys sealed before": (key_store.HOLD_SEALED_BEFORE, ("\\x03", 2, 200), "license.license_key"),
    "a live session": (customer_session_store.IS_LIVE, ("cses_7",), "license.customer_session"),
    "keys of an import": (key_store.FIND_MANY, (KEY_HASHES,), "license.license_key"),
    "licenses by external ids": (store.GET_LICENSES_BY_EXTERNAL_ID, (["x7", "x8"],), *A_LICENSE),
    "products of an import": (catalog_store.HOLD_PRODUCTS, (["prod_7"],), "license.product"),
    "policies of an import": (catalog_store.HOLD_POLICIES, (["pol_7", "pol_8"],), "license.policy"),
    "policies by external ids": (catalog_store.HOLD_POLICIES_BY_EXTERNAL_ID, (["x7", "x8"],), "license.policy"),
    "tiers of an import": (tier_store.HOLD_MANY, (["tier_7", "tier_8"],), "license.tier"),
    "tiers by slugs": (tier_store.HOLD_MANY_BY_SLUG, (["prod_7"], ["t7", "t8"]), "license.tier"),
    "customers of an import": (customer_store.HOLD_MANY, (["cus_7", "cus_8"],), "license.customer"),
    "customers by emails": (customer_store.HOLD_MANY_BY_EMAIL, (["7@x.test", "8@x.test"],), "license.customer"),
    "customers by subject_refs": (customer_store.HOLD_MANY_BY_SUBJECT, (["s7", "s8"],), "license.customer"),
    "the newest file": (file_store.NEWEST, ("lic_7",), "license.license_file"),
    "files of a license": (file_store.PAGE, ("lic_7", 5, 51), "license.license_file"),
    "keys of files": (file_store.KEYS, (["kid_7", "kid_8"],), "license.signing_key"),
    "a key that works": (key_store.WORKS, (KEY_HASHES, "lic_7"), "license.license_key"),
    "a key set": (signing_key_store.GET_SET, ("prod_7",), "license.key_set"),
    "a held key set": (signing_key_store.HOLD_SET, ("prod_7",), "license.key_set"),
    "keys that sign": (signing_key_store.LIVING, ("prod_7", "FILE"), "license.signing_key"),
    "a signing key": (signing_key_store.GET, ("kid_7",), "license.signing_key"),
    "a sealed signing key": (signing_key_store.GET_SEALED, ("kid_7",), "license.signing_key"),
    "signing keys sealed before": (signing_key_store.HOLD_SEALED_BEFORE, ("kid_", 2, 200), "license.signing_key"),
    "signing keys": (signing_key_store.PAGE, ("kid_5", 51, "prod_7"), "license.signing_key"),
    "a subject": (event_store.IS_KNOWN, ("s7",), "record.subject"),
    "a customer by email": (customer_store.HOLD_BY_EMAIL, ("7@x.test",), "license.customer"),
    "a customer by subject_ref": (customer_store.GET_BY_SUBJECT, ("s7",), "license.customer"),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", OTHERS)
async def test_other_reads_of_a_tenant_go_through_indexes(many: Scratch, name: str, mode: str) -> None:
    statement, values, *tables = OTHERS[name]
    async with many.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", *values), mode)
    # What is put in order is what the names found.
    refuse_full_reads([node for node in found if node["Node Type"] != "Sort" or "ANY" not in statement], *tables)


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_the_newest_file_of_a_machine_is_found_through_an_index(many: Scratch, mode: str) -> None:
    async with many.connect(Role.MACHINE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, machine_file_store.NEWEST, (LARGE.account_id, "LIVE", "mach_7"), mode)
    refuse_full_reads(found, "machine.machine_file")


EVENTS = {
    "all": event_store.EventFilter("lic_many"),
    "types": event_store.EventFilter("lic_many", ("license.created", "license.suspended")),
    "times": event_store.EventFilter("lic_many", (), TIME, TIME + timedelta(days=1)),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", EVENTS)
async def test_the_events_of_a_license_are_read_in_the_order_of_their_numbers(
    many: Scratch, name: str, mode: str
) -> None:
    """Through the index of the numbers, so that a page of one license among all events reads that page."""
    statement, values = event_store.page_statement(EVENTS[name])
    async with many.connect(Role.LICENSE) as conn, conn.transaction():
        await enter(conn, LARGE)
        found = await plan_of(conn, statement, (LARGE.account_id, "LIVE", "lic_many", 5, 51, *values), mode)
    refuse_full_reads(found, "record.event")
    assert "event_account_id_mode_subject_subject_seq_key" in {node.get("Index Name") for node in found}
