"""Durations and calendar periods beside what Postgres makes of them, in whatever zone its operator has put it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import asyncpg
import pytest
import pytest_asyncio

from services.license.periods import check_in_due
from services.license.terms import CheckInInterval
from shared.db.migrate import migrate
from shared.db.pool import Database, PostgresTarget
from shared.db.roles import Role
from shared.embedded.postgres import EmbeddedPostgres
from shared.tenancy import Mode, Tenant

ZONES: Final = ("UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe")
EDGES: Final = [
    datetime(year, month, day, 23, 59, 59, 999_999, UTC)
    for year in (1999, 2000, 2023, 2024, 2100)
    for month, day in ((1, 29), (1, 30), (1, 31), (2, 28), (3, 31), (10, 31), (12, 31))
]
LEAP_DAYS: Final = [datetime(year, 2, 29, tzinfo=UTC) for year in (2000, 2024, 2096)]
UNITS: Final = {
    CheckInInterval.DAY: "1 day", CheckInInterval.WEEK: "7 days", CheckInInterval.MONTH: "1 month",
    CheckInInterval.YEAR: "1 year",
}  # fmt: skip
DUE: Final = """
    SELECT (start AT TIME ZONE 'UTC' + n * $3::text::interval) AT TIME ZONE 'UTC' AS due
      FROM unnest($1::timestamptz[], $2::int[]) WITH ORDINALITY AS given (start, n, place) ORDER BY place
"""


@pytest_asyncio.fixture
async def admin(postgres: EmbeddedPostgres) -> AsyncGenerator[asyncpg.Connection]:
    await migrate(postgres.admin_dsn())
    conn = await asyncpg.connect(postgres.admin_dsn())
    yield conn
    await conn.close()


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("interval", list(CheckInInterval))
async def test_a_check_in_is_due_when_postgres_says(
    admin: asyncpg.Connection, interval: CheckInInterval, zone: str
) -> None:
    draw = Random(interval.value + zone)
    first = datetime(1970, 1, 1, tzinfo=UTC)
    starts = [first + timedelta(microseconds=draw.randrange(10**16)) for _ in range(2000)] + EDGES + LEAP_DAYS
    counts = [draw.randint(1, 365) for _ in starts]
    await admin.execute(f"SET TimeZone TO '{zone}'")
    expected = [row["due"] for row in await admin.fetch(DUE, starts, counts, UNITS[interval])]
    assert [check_in_due(interval, n, start, None) for start, n in zip(starts, counts, strict=True)] == expected


async def test_a_day_has_24_hours_in_the_record_wherever_postgres_is(
    admin: asyncpg.Connection, postgres: EmbeddedPostgres
) -> None:
    """In New York 1 November 2026 has 25 hours: a list that is narrowed to expired licenses adds grace periods in SQL."""
    role = Role.LICENSE.value
    await admin.execute(f"ALTER ROLE {role} SET TimeZone TO 'America/New_York'")
    try:
        async with (
            Database.opened(PostgresTarget(postgres.dsn()), Role.LICENSE, size=1) as db,
            db.transaction(Tenant("acc_1", Mode.TEST), read_only=True) as tx,
        ):
            before = datetime(2026, 11, 1, 0, tzinfo=UTC)
            for days in (1, 365):
                period = timedelta(days=days)
                assert (
                    await tx.conn.fetchval("SELECT $1::timestamptz + $2::interval", before, period) == before + period
                )
    finally:
        await admin.execute(f"ALTER ROLE {role} RESET TimeZone")
