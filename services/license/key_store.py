"""Every SQL statement on license keys: their hashes, and what is sealed of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from shared.crypto.keyring import Place, Wrapped
from shared.db import statements
from shared.db.pool import Transaction

_TABLE: Final = "license.license_key"
SEALED_COLUMN: Final = f"{_TABLE}.ciphertext"

_COLUMNS: Final = ("license_id", "key_hash", "kek_version", "nonce", "ciphertext")
INSERT: Final = statements.insert(_TABLE, _COLUMNS)
INSERT_MANY: Final = statements.insert_many(_TABLE, _COLUMNS)
FIND_MANY: Final = statements.select(_TABLE, ("key_hash", "license_id"), "key_hash = ANY ($3)")
FIND: Final = statements.select(_TABLE, ("license_id",), "key_hash = ANY ($3)")
WORKS: Final = statements.select(
    _TABLE, ("license_id",), "key_hash = ANY ($3)", "license_id = $4", "(expires_at IS NULL OR expires_at > now())"
)
GET_SEALED: Final = statements.select(
    _TABLE, ("key_hash", "kek_version", "nonce", "ciphertext"), "license_id = $3", "kek_version IS NOT NULL"
)
END: Final = (
    f"UPDATE {_TABLE} SET expires_at = $4, kek_version = NULL, nonce = NULL, ciphertext = NULL "
    "WHERE account_id = $1 AND mode = $2 AND license_id = $3 AND (expires_at IS NULL OR expires_at > $4)"
)
FORGET_SEALED: Final = (
    f"UPDATE {_TABLE} SET kek_version = NULL, nonce = NULL, ciphertext = NULL "
    "WHERE account_id = $1 AND mode = $2 AND license_id = $3 AND kek_version IS NOT NULL"
)

HOLD_SEALED_BEFORE: Final = (
    statements.select(_TABLE, ("key_hash", "kek_version", "nonce", "ciphertext"), "key_hash > $3", "kek_version < $4")
    + " ORDER BY key_hash LIMIT $5 FOR UPDATE"
)
RESEAL: Final = statements.update(_TABLE, "key_hash", ("kek_version", "nonce", "ciphertext"))


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


def place_of(tx: Transaction, key_hash: bytes) -> Place:
    """Where a sealed key belongs: to the row of its own hash."""
    return Place(SEALED_COLUMN, tx.tenant, key_hash.hex())


async def is_known(tx: Transaction, key_hashes: list[bytes]) -> bool:
    """Whether a license has, or had, a key with one of these hashes."""
    return bool(await tx.conn.fetch(FIND, *_in_tenant(tx, key_hashes)))


async def works(tx: Transaction, license_id: str, key_hashes: list[bytes]) -> bool:
    """Whether one of these hashes is of a key of the license that has not ended."""
    return bool(await tx.conn.fetch(WORKS, *_in_tenant(tx, key_hashes, license_id)))


async def insert(tx: Transaction, license_id: str, key_hash: bytes, sealed: Wrapped | None) -> None:
    columns = (None, None, None) if sealed is None else (sealed.kek_version, sealed.nonce, sealed.ciphertext)
    await tx.conn.execute(INSERT, *_in_tenant(tx, license_id, key_hash, *columns))


async def find_many(tx: Transaction, key_hashes: list[bytes]) -> dict[bytes, str | None]:
    """Of the hashes that a license has, or had: the license, None where it is gone."""
    rows = await tx.conn.fetch(FIND_MANY, *_in_tenant(tx, key_hashes))
    return {row["key_hash"]: row["license_id"] for row in rows}


async def insert_many(tx: Transaction, keys: Sequence[tuple[str, bytes, Wrapped | None]]) -> None:
    """Stores keys, each by its license, its hash, and what is sealed of it."""

    def written() -> str:
        unsealed = (None, None, None)
        return statements.rows(
            _COLUMNS,
            [
                (license_id, key_hash, *(unsealed if w is None else (w.kek_version, w.nonce, w.ciphertext)))
                for license_id, key_hash, w in keys
            ],
        )

    await tx.conn.execute(INSERT_MANY, *_in_tenant(tx, await asyncio.to_thread(written)))


async def get_sealed(tx: Transaction, license_id: str) -> tuple[Place, Wrapped] | None:
    """The sealed key of a license; None where only its hash is kept."""
    row: asyncpg.Record | None = await tx.conn.fetchrow(GET_SEALED, *_in_tenant(tx, license_id))
    if row is None:
        return None
    return place_of(tx, row["key_hash"]), Wrapped(row["kek_version"], row["nonce"], row["ciphertext"])


async def end(tx: Transaction, license_id: str, at: datetime) -> None:
    """Lets no key of a license work on after `at`, and keeps their hashes alone; those that end earlier end as they would."""
    await tx.conn.execute(END, *_in_tenant(tx, license_id, at))


async def hold_sealed_before(
    tx: Transaction, kek_version: int, after: bytes, limit: int
) -> list[tuple[bytes, Place, Wrapped]]:
    """Keys that are sealed under versions before `kek_version`, in the order of their hashes, from beyond `after`."""
    rows = await tx.conn.fetch(HOLD_SEALED_BEFORE, *_in_tenant(tx, after, kek_version, limit))
    return [
        (row["key_hash"], place_of(tx, row["key_hash"]), Wrapped(row["kek_version"], row["nonce"], row["ciphertext"]))
        for row in rows
    ]


async def reseal(tx: Transaction, key_hash: bytes, sealed: Wrapped) -> None:
    await tx.conn.execute(RESEAL, *_in_tenant(tx, key_hash, sealed.kek_version, sealed.nonce, sealed.ciphertext))


async def forget_sealed(tx: Transaction, license_id: str) -> None:
    """Keeps the hashes of a license's keys alone."""
    await tx.conn.execute(FORGET_SEALED, *_in_tenant(tx, license_id))
