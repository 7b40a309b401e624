"""The question that a process asks the record again and again: what has changed since?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import asyncpg

from shared.freshness.epoch import EPOCH
from shared.freshness.lease import LEASE_COLUMNS, LeaseTerms
from shared.freshness.snapshot import Snapshot, Stamp

MAX_CHANGES: Final = 20_000
"""Changes that one poll takes; with more everything is dropped, which is cheaper."""
CONNECT_WITHIN_S: Final = 2.0

# What the snapshot $1 does not see, at most $2 rows and one more. One statement, and so one snapshot. A cursor over the
# revision would miss rows that commit out of order. What is at or above the statement's own snapshot is of another cluster,
# whose rows were restored into this one.
CHANGED: Final = """
    WITH changed AS MATERIALIZED (
        SELECT c.kind, c.key, c.xid FROM (
            SELECT n.kind, n.key, n.xid FROM record.change_log AS n
             WHERE n.xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND n.xid < pg_snapshot_xmax(pg_current_snapshot())
            UNION ALL
            SELECT o.kind, o.key, o.xid FROM record.change_log AS o
             WHERE o.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
        ) AS c LIMIT $2 + 1
    )
"""
POLL: Final = f"""{CHANGED}
    SELECT (SELECT system_identifier FROM pg_control_system()) AS system_id, {EPOCH} AS epoch,
           pg_current_snapshot()::text AS snapshot, clock_timestamp() AS at, {LEASE_COLUMNS},
           (SELECT count(*) FROM changed) > $2 AS too_many,
           ARRAY(SELECT DISTINCT kind FROM changed) AS kinds,
           ARRAY(SELECT kind || ':' || key FROM changed WHERE (SELECT count(*) FROM changed) <= $2) AS keys,
           ARRAY(SELECT xid::text::bigint FROM changed WHERE (SELECT count(*) FROM changed) <= $2) AS xids
      FROM record.lease AS l
"""  # noqa: S608 - put together from constants
BASE: Final = """
    SELECT b.snapshot::text AS snapshot FROM record.tail_base AS b
     WHERE b.epoch = (SELECT epoch FROM record.epoch) AND b.at > clock_timestamp() - $1::interval
       AND pg_snapshot_xmax(b.snapshot) <= pg_snapshot_xmax(pg_current_snapshot())
     ORDER BY b.at LIMIT 1
"""
NEW_EPOCH: Final = "INSERT INTO record.epoch DEFAULT VALUES ON CONFLICT (only_row) DO NOTHING"


@dataclass(frozen=True, slots=True)
class Polled:
    """The answer to one poll.

    Attributes:
        stamp: The state that it saw.
        at: The record's time then.
        terms: How long leases and waits are.
        kinds: The kinds of what changed.
        keys: What changed, each with the transaction in the same place of `xids`; empty with `too_many`.
        xids: The transactions.
        too_many: Whether more changed than the poll takes.
    """

    stamp: Stamp
    at: datetime
    terms: LeaseTerms
    kinds: Sequence[str]
    keys: Sequence[str]
    xids: Sequence[int]
    too_many: bool = False


class Source(Protocol):
    """Where the tail asks."""

    async def base(self, window: timedelta) -> Snapshot | None:
        """The oldest stored snapshot of the current epoch that is younger than `window`; None where there is none."""
        ...

    async def poll(self, since: Snapshot | None, most: int, within_s: float) -> Polled:
        """What has committed that `since` does not see; nothing where it is None. OSError, TimeoutError and what asyncpg
        raises where the record does not answer within the time."""
        ...

    async def close(self) -> None:
        """Ends the connection."""
        ...


class RecordSource:
    """Asks Postgres on a connection of its own, as `lictor_facts`: no load keeps a poll waiting."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._conn: asyncpg.Connection | None = None

    async def base(self, window: timedelta) -> Snapshot | None:
        conn = await self._connected()
        try:
            text = await conn.fetchval(BASE, window, timeout=CONNECT_WITHIN_S)
        except BaseException:
            self._terminate()
            raise
        return None if text is None else Snapshot.parse(text)

    async def poll(self, since: Snapshot | None, most: int, within_s: float) -> Polled:
        conn = await self._connected()
        # A snapshot that sees everything: the first poll of a process without a base asks for the state alone.
        text = _EVERYTHING if since is None else str(since)
        try:
            row = await conn.fetchrow(POLL, text, most, timeout=within_s)
            assert row is not None
            if row["epoch"] is None:
                await conn.execute(NEW_EPOCH, timeout=within_s)
                row = await conn.fetchrow(POLL, text, most, timeout=within_s)
                assert row is not None
        except BaseException:
            self._terminate()
            raise
        return Polled(
            stamp=Stamp(row["system_id"], row["epoch"], Snapshot.parse(row["snapshot"])),
            at=row["at"],
            terms=LeaseTerms(row["l_ms"], row["previous_l_ms"], row["just_changed"]),
            kinds=row["kinds"],
            keys=row["keys"],
            xids=row["xids"],
            too_many=row["too_many"],
        )

    async def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await conn.close(timeout=CONNECT_WITHIN_S)

    async def _connected(self) -> asyncpg.Connection:
        if self._conn is None or self._conn.is_closed():
            async with asyncio.timeout(CONNECT_WITHIN_S):
                self._conn = await self._connect()
        return self._conn

    def _terminate(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


_EVERYTHING: Final = f"{2**63 - 1}:{2**63 - 1}:"
