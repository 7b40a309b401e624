"""Safe retries: the result of a mutation is stored with it, in its transaction, for 24 hours."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from shared.crypto import sealing
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason


@dataclass(frozen=True, slots=True)
class Claim:
    """One request id of one method inside one tenant."""

    method: str
    request_id: str
    body: bytes
    secret: bool
    """Whether the result holds a secret, and so is sealed under the request id."""

    def context(self, tx: Transaction) -> bytes:
        return f"{tx.tenant.account_id}|{tx.tenant.mode}|{self.method}".encode()


async def claim(tx: Transaction, request: Claim) -> bytes | None:
    """The stored result of an earlier call; None when this call is the first, and now holds the id.

    REQUEST_ID_REUSED when the earlier call had another body; DUPLICATE_IN_FLIGHT when it is still running.
    """
    key = (tx.tenant.account_id, tx.tenant.mode.value, request.method, sealing.request_id_hash(request.request_id))
    body_hash = sealing.body_hash(request.request_id, request.body)
    try:
        mine = await tx.conn.fetchval(
            "INSERT INTO record.request (account_id, mode, method, request_id_hash, body_hash) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT (account_id, mode, method, request_id_hash) DO UPDATE "
            "SET body_hash = excluded.body_hash, result = NULL, created_at = now() "
            "WHERE request.created_at < now() - interval '24 hours' RETURNING true",
            *key, body_hash,
        )  # fmt: skip
    except asyncpg.LockNotAvailableError as error:
        raise DomainError(
            Reason.DUPLICATE_IN_FLIGHT,
            "a call with this request_id is still running",
            metadata={"method": request.method},
        ) from error
    if mine:
        return None
    row = await tx.conn.fetchrow(
        "SELECT body_hash, result, sealed FROM record.request "
        "WHERE account_id = $1 AND mode = $2 AND method = $3 AND request_id_hash = $4",
        *key,
    )
    if row is None or row["result"] is None:
        raise DomainError(
            Reason.TRANSACTION_CONFLICT, "the earlier call with this request_id was just removed; try again"
        )
    if row["body_hash"] != body_hash:
        raise DomainError(
            Reason.REQUEST_ID_REUSED,
            "this request_id was used with another request",
            metadata={"method": request.method},
        )
    stored: bytes = row["result"]
    return sealing.unseal(request.request_id, request.context(tx), stored) if row["sealed"] else stored


async def store(tx: Transaction, request: Claim, result: bytes) -> None:
    """Keeps the result for a retry; sealed where it holds a secret."""
    kept = sealing.seal(request.request_id, request.context(tx), result) if request.secret else result
    await tx.conn.execute(
        "UPDATE record.request SET result = $5, sealed = $6 "
        "WHERE account_id = $1 AND mode = $2 AND method = $3 AND request_id_hash = $4",
        tx.tenant.account_id, tx.tenant.mode.value, request.method, sealing.request_id_hash(request.request_id), kept,
        request.secret,
    )  # fmt: skip


async def sweep(conn: asyncpg.Connection, *, limit: int) -> int:
    """Deletes up to `limit` results older than 24 hours; returns how many."""
    return await conn.fetchval(
        "WITH old AS (SELECT ctid FROM record.request WHERE created_at < now() - interval '24 hours' "
        "ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED), "
        "gone AS (DELETE FROM record.request AS r USING old WHERE r.ctid = old.ctid RETURNING 1) SELECT count(*) FROM gone",
        limit,
    )
