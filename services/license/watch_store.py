"""What streams of licenses read beside facts: pages of ids, and what has changed since they were last told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.license.watch_marks import Group, Narrowed
from shared.db.pool import Database, Transaction
from shared.facts.stamped import STAMP, stamp_of
from shared.freshness.poll import CHANGED, MAX_CHANGES
from shared.freshness.snapshot import Snapshot, Stamp
from shared.tenancy import Tenant

# As a tail polls, and of what it finds only what is the tenant's. Kinds that concern everybody are among `kinds`.
CHANGED_SINCE: Final = f"""{CHANGED}
    SELECT {STAMP}, clock_timestamp() AS at, (SELECT count(*) FROM changed) > $2 AS too_many,
           ARRAY(SELECT DISTINCT kind FROM changed) AS kinds,
           ARRAY(SELECT DISTINCT kind || ':' || key FROM changed WHERE starts_with(key, $3)) AS keys
"""


@dataclass(frozen=True, slots=True)
class Since:
    """What has changed since a snapshot.

    Attributes:
        stamp: The state that was read; None right after a crash of Postgres.
        at: The record's time then.
        kinds: The kinds of all that changed.
        keys: What changed of the tenant's, as a tail would tell it.
        too_many: Whether more has changed than is read.
    """

    stamp: Stamp | None
    at: datetime
    kinds: Sequence[str]
    keys: Sequence[str]
    too_many: bool


async def changed_since(db: Database, tenant: Tenant, snapshot: Snapshot) -> Since:
    """As `lictor_facts`."""
    prefix = f"{tenant.account_id}/{tenant.mode.value}/"
    [row] = await db.load(CHANGED_SINCE, str(snapshot), MAX_CHANGES, prefix)
    return Since(stamp_of(row), row["at"], row["kinds"], row["keys"], row["too_many"])


def page_statement(narrowed: Narrowed, group: Group | None) -> tuple[str, list[str]]:
    """The statement of a page of ids, and the values of its filters, from $5 on."""
    wanted = {"product_id": narrowed.product_id, "policy_id": narrowed.policy_id}
    pairs = [*wanted.items(), *([(group.column, group.value)] if group is not None else [])]
    pairs = [(column, value) for column, value in dict.fromkeys(pairs) if value]
    narrowing = " ".join(f"AND {column} = ${n}" for n, (column, _) in enumerate(pairs, start=5))
    statement = (
        f"SELECT license_id FROM license.license WHERE account_id = $1 AND mode = $2 AND license_id > $3 {narrowing} "
        "ORDER BY license_id LIMIT $4"
    )
    return statement, [value for _, value in pairs]


async def page(tx: Transaction, narrowed: Narrowed, group: Group | None, after: str, limit: int) -> list[str]:
    """The ids after `after`, in order, of licenses that meet the filters, and are of the group where there is one."""
    statement, values = page_statement(narrowed, group)
    rows = await tx.conn.fetch(statement, tx.tenant.account_id, tx.tenant.mode.value, after, limit, *values)
    return [row["license_id"] for row in rows]
