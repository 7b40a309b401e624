"""`record.process`: which processes serve at the moment. Each says every 10 seconds that it is there."""

from __future__ import annotations

from time import monotonic
from typing import Final

from shared.db.pool import Database
from shared.ids import Prefix, new_id

BEAT_S: Final = 10.0
"""How often a process says that it lives."""
LIVE_S: Final = 30.0
"""How long it is believed."""

# The count is of the moment before: this process is not among the others, be its row there or not. A process counts those
# that serve what it serves.
_SERVES_THE_SAME: Final = "($2 = 'all' OR p.target IN ($2, 'all'))"
BEAT: Final = f"""
    WITH mine AS (
        INSERT INTO record.process (process_id, target, started_at, seen_at)
        VALUES ($1, $2, clock_timestamp() - make_interval(secs => $3), clock_timestamp())
        ON CONFLICT (process_id) DO UPDATE SET seen_at = excluded.seen_at
    )
    SELECT 1 + count(*) FROM record.process AS p
     WHERE p.process_id <> $1 AND p.seen_at > clock_timestamp() - make_interval(secs => $4) AND {_SERVES_THE_SAME}
"""  # noqa: S608 - put together from constants
# A transaction of its own: two that each freshened a row and swept the other's would wait for each other. Rows that are
# locked are being swept, or freshened, by somebody else.
SWEEP: Final = """
    WITH stale AS (
        SELECT s.process_id FROM record.process AS s
         WHERE s.seen_at <= clock_timestamp() - make_interval(secs => $2) AND s.process_id <> $1 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM record.process AS d USING stale WHERE d.process_id = stale.process_id
"""
LEAVE: Final = "DELETE FROM record.process WHERE process_id = $1"


class ProcessRow:
    """This process's row. Each object is a process of its own.

    Args:
        db: The connections of a service's own role.
        target: What the process serves.
    """

    def __init__(self, db: Database, target: str) -> None:
        self._db = db
        self._target = target
        self._begun = monotonic()
        self.process_id = new_id(Prefix.PROCESS)

    async def beat(self) -> int:
        """Sweeps the rows of processes that are gone, freshens its own, and counts those that live, this one among them.

        Raises:
            DomainError: RECORD_UNREACHABLE.
        """
        async with self._db.across_tenants() as conn:
            await conn.execute(SWEEP, self.process_id, LIVE_S)
        async with self._db.across_tenants() as conn:
            return await conn.fetchval(BEAT, self.process_id, self._target, monotonic() - self._begun, LIVE_S)

    async def leave(self) -> None:
        """Takes the row away. DomainError: RECORD_UNREACHABLE."""
        async with self._db.across_tenants() as conn:
            await conn.execute(LEAVE, self.process_id)
