"""Keeps the log of changes short, and stores the snapshots from which new processes begin."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from shared.db.pool import Database
from shared.errors import DomainError
from shared.observe.logging import get_logger

EVERY_S: Final = 60.0
KEPT_MINUTES: Final = 30
"""How old a stored snapshot must be for what it sees to go. A tail that has not polled for 25 minutes drops its facts."""
BATCH: Final = 10_000

# One of several processes is enough, and two do no harm.
STORE_BASE: Final = """
    INSERT INTO record.tail_base (epoch, snapshot)
    SELECT e.epoch, pg_current_snapshot() FROM record.epoch AS e
     WHERE NOT EXISTS (SELECT FROM record.tail_base AS b WHERE b.epoch = e.epoch AND b.at > clock_timestamp() - interval '50 s')
"""
DROP_BASES: Final = """
    DELETE FROM record.tail_base AS b
     WHERE b.at < clock_timestamp() - make_interval(mins => $1 * 2) OR b.epoch <> (SELECT epoch FROM record.epoch)
"""
# By visibility, never by time: a transaction may have been open for long. What no transaction of this cluster can have
# written was restored into it, and goes at once; a base that no transaction of it can have stored is none.
TRIM: Final = """
    WITH base AS (
        SELECT b.snapshot FROM record.tail_base AS b
         WHERE b.epoch = (SELECT epoch FROM record.epoch) AND b.at < clock_timestamp() - make_interval(mins => $1)
           AND pg_snapshot_xmax(b.snapshot) <= pg_snapshot_xmax(pg_current_snapshot())
         ORDER BY b.at DESC LIMIT 1
    )
    DELETE FROM record.change_log AS d WHERE d.revision = ANY (ARRAY(
        (SELECT c.revision FROM record.change_log AS c, base
          WHERE c.xid < pg_snapshot_xmax(base.snapshot) AND pg_visible_in_snapshot(c.xid, base.snapshot) LIMIT $2)
        UNION ALL
        (SELECT c.revision FROM record.change_log AS c WHERE c.xid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT $2)
    ))
"""

_log = get_logger(__name__)


async def keep(db: Database) -> int:
    """Stores a snapshot where the last one is a minute old, and trims the log; returns how many rows went."""
    trimmed = 0
    async with db.across_tenants() as conn:
        await conn.execute(STORE_BASE)
        await conn.execute(DROP_BASES, KEPT_MINUTES)
    while True:
        async with db.across_tenants() as conn:
            gone = int((await conn.execute(TRIM, KEPT_MINUTES, BATCH)).rpartition(" ")[2])
        trimmed += gone
        if gone < BATCH:
            return trimmed


async def keep_forever(db: Database) -> None:
    """Once a minute, and at once."""
    while True:
        try:
            await keep(db)
        except DomainError as error:
            _log.warning("worker_failed", worker="log_keeper", reason=error.reason.value)
        except Exception as error:  # noqa: BLE001 - the next minute tries again
            _log.error("worker_failed", worker="log_keeper", exc_info=error)
        await asyncio.sleep(EVERY_S * random.uniform(0.9, 1.1))  # noqa: S311 - only spreads
