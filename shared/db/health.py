"""What a Postgres says of itself, as any of the roles sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.db.pool import Database

OLDEST_VERSION = 15


@dataclass(frozen=True, slots=True)
class ServerState:
    """`version` is as it is written (`16.4`), `schema_version` the newest migration. `at` is its clock."""

    version: str
    major: int
    standby: bool
    schema_version: int
    at: datetime


async def look(db: Database) -> ServerState:
    """One statement."""
    (row,) = await db.load(
        "SELECT clock_timestamp() AS at, current_setting('server_version') AS version, "
        "current_setting('server_version_num')::int / 10000 AS major, pg_is_in_recovery() AS standby, "
        "(SELECT max(version) FROM record.migration) AS schema_version"
    )
    return ServerState(**row)
