"""The loads of facts stay fast with many rows: none reads a table from end to end."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from shared.db.pool import POINT_READS
from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from shared.facts.credential_loads import API_KEY_LOAD, CUSTOMER_SESSION_LOAD, OPERATOR_KEY_LOAD, WORKLOAD_LOAD
from shared.facts.license_loads import LOAD_BATCH, LOAD_BY_ID, LOAD_BY_KEY, LOAD_MACHINES
from shared.facts.signing_keys import KEY_SET_LOAD
from shared.facts.stale_spans import LONGEST_STALE
from shared.rules.spiffe import SpiffeId
from tests.helpers.plans import KEY_HASHES, LARGE, plan_of, refuse_full_reads
from tests.helpers.record import Scratch, sample, scratch


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="empty")
async def _empty(postgres: EmbeddedPostgres) -> AsyncGenerator[Scratch]:
    async with scratch(postgres) as made:
        yield made


MACHINE_HASHES = [b"\x05" + hashlib.sha256(b"7").digest(), b"\x05" + hashlib.sha256(b"none").digest()]
TRUST_DOMAIN = sample(LARGE, 0)["license.workload_binding"]["trust_domain"]
OF_A_LICENSE = (
    "license.license", "license.license_usage", "license.product", "license.policy", "license.customer", "license.tier",
    "machine.seat",
)  # fmt: skip
HOT = {
    "LOAD_BY_KEY": (LOAD_BY_KEY, (LARGE.account_id, "LIVE", KEY_HASHES), ("license.license_key", *OF_A_LICENSE)),
    "LOAD_BY_ID": (LOAD_BY_ID, (LARGE.account_id, "LIVE", "lic_7"), OF_A_LICENSE),
    "LOAD_BATCH": (
        LOAD_BATCH, (LARGE.account_id, "LIVE", [0, 1], [KEY_HASHES[0], None], [None, "lic_7"]),
        ("license.license_key", *OF_A_LICENSE),
    ),
    "LOAD_MACHINES": (
        LOAD_MACHINES,
        (
            LARGE.account_id, "LIVE", [0, 1], [KEY_HASHES[0], None], [None, "lic_7"], ["mach_7", ""],
            ["", ",".join(hashed.hex() for hashed in MACHINE_HASHES)],
        ),
        (
            "license.license_key", *OF_A_LICENSE, "machine.machine", "machine.fingerprint", "machine.component",
            "machine.beat",
        ),
    ),
    "API_KEY_LOAD": (API_KEY_LOAD, (KEY_HASHES,), ("license.api_key", "license.account")),
    "CUSTOMER_SESSION_LOAD": (
        CUSTOMER_SESSION_LOAD, (KEY_HASHES,), ("license.customer_session", "license.account", "license.customer"),
    ),
    "WORKLOAD_LOAD": (
        WORKLOAD_LOAD, (TRUST_DOMAIN, list(SpiffeId(TRUST_DOMAIN, "/w/x7").covering_paths())),
        ("license.workload_binding", "license.account"),
    ),
    "KEY_SET_LOAD": (KEY_SET_LOAD, ("kset_7",), ("license.key_set", "license.signing_key")),
    "LONGEST_STALE": (LONGEST_STALE, (LARGE.account_id,), ("license.policy", "license.stale_span")),
    "OPERATOR_KEY_LOAD": (OPERATOR_KEY_LOAD, (KEY_HASHES,), ("license.operator_key",)),
}  # fmt: skip


FEW: dict[str, set[str]] = {"LOAD_MACHINES": {"Sort"}}
"""Plan nodes that order what was found of one license."""


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", HOT)
async def test_facts_are_loaded_through_indexes(many: Scratch, name: str, mode: str) -> None:
    statement, arguments, tables = HOT[name]
    async with many.connect(Role.FACTS) as conn, conn.transaction():
        found = await plan_of(conn, statement, arguments, mode)
    refuse_full_reads([node for node in found if node["Node Type"] not in FEW.get(name, ())], *tables)


@pytest.mark.parametrize("name", HOT)
async def test_plans_made_while_the_tables_are_empty_are_no_others(empty: Scratch, name: str) -> None:
    """They are kept while the tables grow."""
    statement, arguments, tables = HOT[name]
    async with empty.connect(Role.FACTS) as conn, conn.transaction():
        for setting, value in POINT_READS.items():
            await conn.execute(f"SET LOCAL {setting} = {value}")
        found = await plan_of(conn, statement, arguments, "generic")
    refuse_full_reads([node for node in found if node["Node Type"] not in FEW.get(name, ())], *tables)
