"""Every SQL statement of the worker that writes when licenses were found valid, over all tenants.

Rows are taken in the order of their keys, and a license's own before that of its usage, as whoever changes a license does:
so nobody waits in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from services.license import store
from services.license.model import License
from shared.tenancy import Tenant

_MARKS: Final = "unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS m (account_id, mode, license_id, at)"
_KEY: Final = "(account_id, mode, license_id)"

MARK: Final = (
    "WITH marked AS (INSERT INTO license.license_usage AS u (account_id, mode, license_id, last_validated_at) "
    f"SELECT m.account_id, m.mode, m.license_id, m.at FROM {_MARKS} JOIN license.license USING {_KEY} "
    "ORDER BY m.account_id, m.mode, m.license_id "
    f"ON CONFLICT {_KEY} DO UPDATE SET last_validated_at = greatest(u.last_validated_at, excluded.last_validated_at) "
    "RETURNING account_id, mode, license_id, first_validated_at) "
    "SELECT account_id, mode, license_id FROM marked WHERE first_validated_at IS NULL"
)
"""The latest of each license; of one that is gone nothing is kept. Returns those that have no first time yet."""

HOLD_UNSEEN: Final = (
    "SELECT u.account_id, u.mode, u.license_id "
    f"FROM {_MARKS} JOIN license.license AS l USING {_KEY} JOIN license.license_usage AS u USING {_KEY} "
    "WHERE u.first_validated_at IS NULL ORDER BY u.account_id, u.mode, u.license_id FOR NO KEY UPDATE OF l, u"
)
MARK_FIRST: Final = (
    f"UPDATE license.license_usage AS u SET first_validated_at = m.at FROM {_MARKS} "
    "WHERE u.account_id = m.account_id AND u.mode = m.mode AND u.license_id = m.license_id"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A license was found valid at this time, by Postgres."""

    tenant: Tenant
    license_id: str
    at: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.tenant.account_id, self.tenant.mode.value, self.license_id)


async def mark(conn: asyncpg.Connection, marks: Sequence[Mark]) -> list[Mark]:
    """Writes when licenses were last found valid; returns the marks of those that have no first time yet."""
    rows = await conn.fetch(MARK, *_columns(marks))
    unseen = {(row["account_id"], row["mode"], row["license_id"]) for row in rows}
    return [one for one in marks if one.key in unseen] if unseen else []


async def mark_first(conn: asyncpg.Connection, marks: Sequence[Mark]) -> list[tuple[Mark, License]]:
    """Writes the first time of those that still have none, and returns them with their licenses, which stay as they are
    until the transaction ends."""
    rows = await conn.fetch(HOLD_UNSEEN, *_columns(marks))
    held = await store.get_licenses_across(conn, [(row["account_id"], row["mode"], row["license_id"]) for row in rows])
    first = [one for one in marks if one.key in held]
    await conn.execute(MARK_FIRST, *_columns(first))
    return [(one, held[one.key]) for one in first]


def _columns(marks: Sequence[Mark]) -> tuple[list[str], list[str], list[str], list[datetime]]:
    return (
        [mark.tenant.account_id for mark in marks],
        [mark.tenant.mode.value for mark in marks],
        [mark.license_id for mark in marks],
        [mark.at for mark in marks],
    )
