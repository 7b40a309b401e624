"""What a poll names is what the loads name: a fact of which a row has changed is under a key that the log has, letter by letter.

Rows are really written and really polled; the loads are those of requests.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from shared.db.pool import Database, PostgresTarget, connected
from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from shared.facts.credential_loads import load_api_key, load_operator_key, load_session, load_workload
from shared.facts.following import KINDS
from shared.facts.license import Wanted
from shared.facts.license_loads import load_many
from shared.facts.machines import MachineAsked
from shared.facts.signing_keys import load_key_set
from shared.freshness.poll import RecordSource
from shared.freshness.snapshot import Snapshot
from shared.rules.spiffe import parse_id
from shared.tenancy import Mode, Tenant
from tests.helpers.fact_functions import FactFunction, watched
from tests.helpers.record import Row, columns, insert, sample, scratch

ONE, TWO = sample(Tenant("acc_one", Mode.TEST), 0), sample(Tenant("acc_two", Mode.LIVE), 1)
SAMPLES = (ONE, TWO)


@dataclass
class Watcher:
    """Reads all facts as requests do, and polls as a process does."""

    db: Database
    source: RecordSource
    admin: asyncpg.Connection
    tables: Mapping[str, FactFunction]
    since: Snapshot

    async def facts(self) -> dict[str, object]:
        """The values of all facts that the loads of both samples read, those that are absent among them."""
        loads = [
            await load_many(
                self.db, Tenant(account_id, mode), [both("license.license_key", "key_hash"), *ids(), *machines()]
            )
            for account_id, mode in product(("acc_one", "acc_two"), (Mode.TEST, Mode.LIVE))
        ]
        loads += [
            await load_api_key(self.db, hashes("license.api_key", "key_hash")),
            await load_operator_key(self.db, hashes("license.operator_key", "key_hash")),
            await load_session(self.db, hashes("license.customer_session", "token_hash")),
            *[await load_key_set(self.db, rows["license.key_set"]["key_set_id"]) for rows in SAMPLES],
        ]
        bindings = [rows["license.workload_binding"] for rows in SAMPLES]
        for domain, path in product(bindings, bindings):
            spiffe_id = parse_id(f"spiffe://{domain['trust_domain']}{path['path']}")
            assert spiffe_id is not None
            loads.append(await load_workload(self.db, spiffe_id))
        found: dict[str, object] = {}
        for load in loads:
            for key, fact in load.facts.items():
                assert fact.key == key
                assert key not in found or found[key] == fact.value, f"two loads say two things of {key}"
                found[key] = fact.value
        return found

    async def polled(self) -> set[str]:
        """The keys of what has changed since the last poll."""
        polled = await self.source.poll(self.since, 1000, 5.0)
        self.since = polled.stamp.snapshot
        return set(polled.keys)

    async def changed_by(self, run: Callable[[], Awaitable[Any]]) -> tuple[set[str], set[str]]:
        """The keys of the facts that differ after a change, and those that the poll after it has."""
        before = await self.facts()
        await self.polled()
        await run()
        after, told = await self.facts(), await self.polled()
        return {key for key in before.keys() & after.keys() if before[key] != after[key]}, told

    async def set_to(self, table: str, column: str, value: Any) -> None:
        """Sets a column, given as a JSON value, of the one row of a table."""
        await self.admin.execute(
            f"UPDATE {table} SET {column} = (jsonb_populate_record(NULL::{table}, $1)).{column}",
            json.dumps({column: value}),
        )

    def key_of(self, table: str, row: Row) -> str:
        return ":".join(self.tables[table].key_of(row))


def both(table: str, column: str) -> Wanted:
    return Wanted(hashes(table, column), None)


def hashes(table: str, column: str) -> Sequence[bytes]:
    return [bytes.fromhex(rows[table][column][2:]) for rows in SAMPLES]


def ids() -> list[Wanted]:
    return [Wanted((), rows["license.license"]["license_id"]) for rows in SAMPLES]


def machines() -> list[Wanted]:
    """Each license with each machine, and with what is known of both."""
    shown = {"": hashes("machine.fingerprint", "fingerprint_hash")}
    return [
        replace(one, machine=MachineAsked(rows["machine.machine"]["machine_id"], shown, {}))
        for one in ids()
        for rows in SAMPLES
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="watcher")
async def _watcher(postgres: EmbeddedPostgres) -> AsyncGenerator[Watcher]:
    """On a record that has one row in each table, without foreign keys, so that parent columns can change."""
    async with scratch(postgres) as made, made.connect() as admin:
        target = PostgresTarget(made.dsn())
        source = RecordSource(lambda: connected(target, Role.FACTS))
        async with Database.opened(target, Role.FACTS) as db:
            tables = await watched(admin)
            await admin.execute("SET session_replication_role = replica")
            for table in tables:
                await insert(admin, table, ONE[table])
            first = await source.poll(None, 1000, 5.0)
            yield Watcher(db, source, admin, tables, first.stamp.snapshot)
        await source.close()


async def test_the_loads_read_a_fact_of_every_kind(watcher: Watcher) -> None:
    found = await watcher.facts()
    assert {key.partition(":")[0] for key in found} == KINDS
    assert {key for key, value in found.items() if value is not None} >= {
        watcher.key_of(table, ONE[table]) for table in watcher.tables
    }


async def test_deletes_and_inserts_are_polled_under_the_keys_of_the_loads(watcher: Watcher) -> None:
    """Children first, as foreign keys have it."""
    in_order = [table for table in ONE if table in watcher.tables]
    for table in reversed(in_order):
        changed, told = await watcher.changed_by(partial(watcher.admin.execute, f"DELETE FROM {table}"))
        check(watcher, table, changed, told)
    for table in in_order:
        changed, told = await watcher.changed_by(partial(insert, watcher.admin, table, ONE[table]))
        check(watcher, table, changed, told)


def check(watcher: Watcher, table: str, changed: set[str], told: set[str]) -> None:
    """A row came or went: that is told, and no other fact has changed. A load that begins with it tells of it."""
    key = watcher.key_of(table, ONE[table])
    assert told == {key}, table
    assert changed == ({key} if table in FOUND_ALONE else set()), table


FOUND_ALONE = {
    "license.license", "license.license_key", "license.api_key", "license.operator_key", "license.workload_binding",
    "license.customer_session", "license.key_set", "license.signing_key", "machine.seat", "machine.machine",
    "machine.fingerprint", "machine.component",
}  # fmt: skip
"""Tables of whose rows a load tells that they are not there; what it finds beyond, it finds through others."""


def orphans(watcher: Watcher, table: str, column: str) -> set[str]:
    """A key without its license finds nothing. Foreign keys, which are off here, let that never be."""
    if table != "license.license" or column not in watcher.tables[table].key:
        return set()
    return {watcher.key_of("license.license_key", ONE["license.license_key"])}


@pytest.mark.parametrize("variant", ["other", "null"])
async def test_updates_of_any_column_are_polled_under_the_keys_of_the_loads(watcher: Watcher, variant: str) -> None:
    telling: dict[str, set[str]] = {}
    for table, function in watcher.tables.items():
        old = ONE[table]
        for column in await columns(watcher.admin, table):
            if variant == "null" and column in function.key:
                continue
            new = {**old, column: TWO[table][column] if variant == "other" else None}
            keys = {watcher.key_of(table, old), watcher.key_of(table, new)}
            for row in (new, old):
                try:
                    changed, told = await watcher.changed_by(partial(watcher.set_to, table, column, row[column]))
                except (asyncpg.NotNullViolationError, asyncpg.CheckViolationError):
                    assert variant == "null", (table, column)
                    break
                assert told == keys, (table, column)
                assert changed - orphans(watcher, table, column) <= told, (table, column)
                if changed:
                    telling.setdefault(table, set()).add(column)
        silent = function.reads - telling.get(table, set())
        if variant == "other":
            assert silent <= WHETHER | ELSE, table
        else:
            assert not silent & WHETHER, table


WHETHER = {"revoked_at", "expiry_anchored_at"}
"""Columns of which facts say only whether there is a time."""
ELSE = {"created_at", "duration"}
"""What counts where something else is not there: the time of the last check-in, and the duration of a trial."""
