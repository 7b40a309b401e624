"""The lease of tests: short, so that calls which take rights away are quick."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from shared.freshness.lease import LeaseTerms

SHORT_LEASE_MS: Final = 10


async def set_lease(dsn: str, l_ms: int = SHORT_LEASE_MS) -> None:
    """Sets it before anybody serves: as if it had never been another."""
    admin = await asyncpg.connect(dsn)
    try:
        async with admin.transaction():
            await admin.execute("DELETE FROM record.lease WHERE l_ms <> $1", l_ms)
            await admin.execute(
                "INSERT INTO record.lease (l_ms, previous_l_ms) VALUES ($1, $1) ON CONFLICT (only_row) DO NOTHING", l_ms
            )
    finally:
        await admin.close()


async def lease_passes() -> None:
    """Waits as a call does that takes rights away: what was written to the record by hand holds everywhere after that."""
    await asyncio.sleep(LeaseTerms(SHORT_LEASE_MS, SHORT_LEASE_MS, just_changed=False).wait_s)
