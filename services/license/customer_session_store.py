"""Every SQL statement on customer sessions."""

from __future__ import annotations

from typing import Any, Final

from services.license.customer_session_model import CustomerSession
from shared.db import statements
from shared.db.pool import Transaction

_TABLE: Final = "license.customer_session"

INSERT: Final = statements.insert(
    _TABLE, ("customer_session_id", "customer_id", "created_at", "expires_at", "token_hash")
)
IS_LIVE: Final = statements.select(
    _TABLE, ("customer_session_id",), "customer_session_id = $3", "expires_at > clock_timestamp()"
)
DELETE_OF_CUSTOMER: Final = (
    f"DELETE FROM {_TABLE} WHERE account_id = $1 AND mode = $2 AND customer_id = $3 "
    "RETURNING customer_session_id, expires_at > now() AS live"
)
OVER: Final = f"SELECT ctid FROM {_TABLE} WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED"
SWEEP: Final = (
    f"WITH old AS ({OVER}), gone AS (DELETE FROM {_TABLE} AS s USING old WHERE s.ctid = old.ctid RETURNING 1) "
    "SELECT count(*) FROM gone"
)


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


async def insert(tx: Transaction, session: CustomerSession, token_hash: bytes) -> None:
    await tx.conn.execute(
        INSERT,
        *_in_tenant(
            tx, session.customer_session_id, session.customer_id, session.created_at, session.expires_at, token_hash
        ),
    )


async def is_live(tx: Transaction, customer_session_id: str) -> bool:
    """Whether the session has neither been ended nor run out."""
    return await tx.conn.fetchval(IS_LIVE, *_in_tenant(tx, customer_session_id)) is not None


async def delete_of_customer(tx: Transaction, customer_id: str) -> tuple[str, ...]:
    """Ends all sessions of a customer; the ids of those that still worked, oldest first."""
    rows = await tx.conn.fetch(DELETE_OF_CUSTOMER, *_in_tenant(tx, customer_id))
    return tuple(sorted(row["customer_session_id"] for row in rows if row["live"]))


async def sweep(conn: Any, *, limit: int) -> int:
    """Deletes up to `limit` sessions of all tenants that have run out; returns how many."""
    return await conn.fetchval(SWEEP, limit)
