"""Every SQL statement on signing keys and the sets that they are published in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from services.license.signing_key_model import (
    SIGNS_SOMETIME,
    KeyAlgorithm,
    KeyPurpose,
    KeySet,
    KeyStatus,
    SigningKey,
)
from shared.crypto.keyring import Place, Wrapped
from shared.db import statements
from shared.db.pool import Transaction

_TABLE: Final = "license.signing_key"
SEALED_COLUMN: Final = f"{_TABLE}.ciphertext"
_COLUMNS: Final = (
    "signing_key_id", "product_id", "purpose", "alg", "status", "public_jwk", "activates_at", "retired_at", "revoked_at",
    "revision", "created_at", "updated_at",
)  # fmt: skip
_SEALED: Final = ("kek_version", "nonce", "ciphertext")
_SET: Final = ("product_id", "key_set_id", "revocation_epoch", "created_at")

MAKE_SET: Final = statements.insert("license.key_set", _SET) + " ON CONFLICT (account_id, mode, product_id) DO NOTHING"
GET_SET: Final = statements.select("license.key_set", _SET, "product_id = $3")
HOLD_SET: Final = GET_SET + " FOR SHARE"
LOCK_SET: Final = GET_SET + " FOR UPDATE"
RAISE_EPOCH: Final = (
    "UPDATE license.key_set SET revocation_epoch = revocation_epoch + 1 "
    "WHERE account_id = $1 AND mode = $2 AND product_id = $3"
)
INSERT: Final = statements.insert(_TABLE, (*_COLUMNS, *_SEALED))
GET: Final = statements.select(_TABLE, _COLUMNS, "signing_key_id = $3")
LIVING: Final = statements.select(
    _TABLE, _COLUMNS, "product_id = $3", "purpose = $4", "status IN ('PENDING', 'ACTIVE')"
)
PAGE: Final = statements.page(_TABLE, _COLUMNS, "signing_key_id", "product_id = $5")
UPDATE: Final = statements.update(_TABLE, "signing_key_id", _COLUMNS[1:])
FORGET: Final = (
    f"UPDATE {_TABLE} SET kek_version = NULL, nonce = NULL, ciphertext = NULL "
    "WHERE account_id = $1 AND mode = $2 AND signing_key_id = $3"
)
GET_SEALED: Final = statements.select(_TABLE, _SEALED, "signing_key_id = $3", "kek_version IS NOT NULL")
HOLD_SEALED_BEFORE: Final = (
    statements.select(_TABLE, ("signing_key_id", *_SEALED), "signing_key_id > $3", "kek_version < $4")
    + " ORDER BY signing_key_id LIMIT $5 FOR UPDATE"
)
RESEAL: Final = statements.update(_TABLE, "signing_key_id", _SEALED)


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


def _key(row: asyncpg.Record) -> SigningKey:
    values: dict[str, Any] = dict(row)
    values["purpose"] = KeyPurpose(values["purpose"])
    values["alg"] = KeyAlgorithm(values["alg"])
    values["status"] = KeyStatus(values["status"])
    return SigningKey(**values)


def _values(key: SigningKey) -> tuple[Any, ...]:
    return (
        key.signing_key_id, key.product_id, key.purpose.value, key.alg.value, key.status.value, dict(key.public_jwk),
        key.activates_at, key.retired_at, key.revoked_at, key.revision, key.created_at, key.updated_at,
    )  # fmt: skip


def place_of(tx: Transaction, signing_key_id: str) -> Place:
    """Where a private key belongs."""
    return Place(SEALED_COLUMN, tx.tenant, signing_key_id)


async def get_set(tx: Transaction, product_id: str) -> KeySet | None:
    """None for a product that has never had a key."""
    return _set(await tx.conn.fetchrow(GET_SET, *_in_tenant(tx, product_id)))


async def hold_set(tx: Transaction, product_id: str) -> KeySet | None:
    """The set, of which nobody changes a key until this transaction ends."""
    return _set(await tx.conn.fetchrow(HOLD_SET, *_in_tenant(tx, product_id)))


async def lock_set(tx: Transaction, product_id: str) -> KeySet | None:
    """The set, whose keys are this transaction's alone to use and to change."""
    return _set(await tx.conn.fetchrow(LOCK_SET, *_in_tenant(tx, product_id)))


async def make_set(tx: Transaction, made: KeySet) -> None:
    """Stores the set of a product, unless there is one."""
    await tx.conn.execute(
        MAKE_SET, *_in_tenant(tx, made.product_id, made.key_set_id, made.revocation_epoch, made.created_at)
    )


async def raise_epoch(tx: Transaction, product_id: str) -> None:
    await tx.conn.execute(RAISE_EPOCH, *_in_tenant(tx, product_id))


async def insert(tx: Transaction, key: SigningKey, private: Wrapped) -> None:
    await tx.conn.execute(
        INSERT, *_in_tenant(tx, *_values(key), private.kek_version, private.nonce, private.ciphertext)
    )


async def get(tx: Transaction, signing_key_id: str) -> SigningKey | None:
    row = await tx.conn.fetchrow(GET, *_in_tenant(tx, signing_key_id))
    return None if row is None else _key(row)


async def living(tx: Transaction, product_id: str, purpose: KeyPurpose) -> Sequence[SigningKey]:
    """Those that sign, or will: at most two."""
    return [_key(row) for row in await tx.conn.fetch(LIVING, *_in_tenant(tx, product_id, purpose.value))]


async def page(tx: Transaction, after: str, limit: int, product_id: str) -> Sequence[SigningKey]:
    return [_key(row) for row in await tx.conn.fetch(PAGE, *_in_tenant(tx, after, limit, product_id))]


async def update(tx: Transaction, key: SigningKey) -> None:
    """Stores a key's new state; its private half goes with the last state in which it could sign."""
    first, *rest = _values(key)
    await tx.conn.execute(UPDATE, *_in_tenant(tx, first, *rest))
    if key.status not in SIGNS_SOMETIME:
        await tx.conn.execute(FORGET, *_in_tenant(tx, key.signing_key_id))


async def get_sealed(tx: Transaction, signing_key_id: str) -> Wrapped | None:
    """The private half; None where it is gone."""
    row = await tx.conn.fetchrow(GET_SEALED, *_in_tenant(tx, signing_key_id))
    return None if row is None else Wrapped(row["kek_version"], row["nonce"], row["ciphertext"])


async def hold_sealed_before(
    tx: Transaction, kek_version: int, after: str, limit: int
) -> list[tuple[str, Place, Wrapped]]:
    """Keys that are sealed under versions before `kek_version`, in the order of their ids, from beyond `after`."""
    rows = await tx.conn.fetch(HOLD_SEALED_BEFORE, *_in_tenant(tx, after, kek_version, limit))
    return [
        (
            row["signing_key_id"],
            place_of(tx, row["signing_key_id"]),
            Wrapped(row["kek_version"], row["nonce"], row["ciphertext"]),
        )
        for row in rows
    ]


async def reseal(tx: Transaction, signing_key_id: str, sealed: Wrapped) -> None:
    await tx.conn.execute(RESEAL, *_in_tenant(tx, signing_key_id, sealed.kek_version, sealed.nonce, sealed.ciphertext))


def _set(row: asyncpg.Record | None) -> KeySet | None:
    return None if row is None else KeySet(**row)
