"""For how long answers may be given without a lease while the record is away, by what the policies of an account allow."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from shared.db.pool import Database
from shared.errors import DomainError, Reason
from shared.rules.stale import MAX_STALE

LONGEST_STALE: Final = "SELECT l.span FROM license.longest_stale($1) AS l"


async def longest_stale(db: Database, account_id: str) -> timedelta:
    """The longest that any policy of an account allows, or has allowed to a process that may not know better yet; of any
    account where `account_id` is empty. As `lictor_facts`. The most that is possible where the record is away by now."""
    try:
        rows = await db.load(LONGEST_STALE, account_id)
    except DomainError as error:
        if error.reason is not Reason.RECORD_UNREACHABLE:
            raise
        return MAX_STALE
    return rows[0]["span"]
