"""Deletes stored results of mutations after their 24 hours, and customer sessions that have run out, across all tenants, as
the worker's own role."""

from __future__ import annotations

import asyncio
from typing import Final

from services.license import customer_session_store
from shared.db import idempotency
from shared.db.pool import Database
from shared.errors import DomainError
from shared.observe.logging import get_logger

BATCH_ROWS: Final = 1000


async def sweep_once(db: Database) -> int:
    """Deletes a batch of each; returns how many rows went of the kind of which more did."""
    async with db.across_tenants() as conn:
        results = await idempotency.sweep(conn, limit=BATCH_ROWS)
    async with db.across_tenants() as conn:
        return max(results, await customer_session_store.sweep(conn, limit=BATCH_ROWS))


async def sweep_forever(db: Database, interval_s: float) -> None:
    """A full batch is followed by the next at once; a record that is away is tried again at the next interval."""
    while True:
        try:
            deleted = await sweep_once(db)
        except DomainError as error:
            get_logger("sweeper").warning("sweep_failed", reason=error.reason.value)
            deleted = 0
        if deleted < BATCH_ROWS:
            await asyncio.sleep(interval_s)
