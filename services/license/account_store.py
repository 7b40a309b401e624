"""Every SQL statement on accounts and API keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from services.license.account_model import Account, AccountStatus, ApiKey, KeyKind
from shared.db import statements
from shared.db.pool import Transaction

_ACCOUNT: Final = "account_id, external_id, display_name, status, revision, created_at, updated_at, limits"
_KEY: Final = (
    "api_key_id", "external_id", "display_name", "scopes", "hint", "expires_at", "revoked_at", "replaced_by_id",
    "revision", "created_at", "updated_at", "kind",
)  # fmt: skip
_KEY_TABLE: Final = "license.api_key"

INSERT_ACCOUNT: Final = f"INSERT INTO license.account ({_ACCOUNT}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
GET_ACCOUNT: Final = f"SELECT {_ACCOUNT} FROM license.account WHERE account_id = $1"
GET_ACCOUNT_BY_EXTERNAL_ID: Final = f"SELECT {_ACCOUNT} FROM license.account WHERE external_id = $1"
LOCK_ACCOUNT: Final = GET_ACCOUNT + " FOR UPDATE"
PAGE_OF_ACCOUNTS: Final = f"SELECT {_ACCOUNT} FROM license.account WHERE account_id > $1 ORDER BY account_id LIMIT $2"
UPDATE_ACCOUNT_STATUS: Final = (
    "UPDATE license.account SET status = $2, revision = $3, updated_at = $4 WHERE account_id = $1"
)
UPDATE_ACCOUNT: Final = (
    "UPDATE license.account SET external_id = $2, display_name = $3, limits = $4, revision = $5, updated_at = $6 "
    "WHERE account_id = $1"
)
INSERT_KEY: Final = statements.insert(_KEY_TABLE, (*_KEY, "key_hash"))
GET_KEY: Final = statements.select(_KEY_TABLE, _KEY, "api_key_id = $3")
GET_KEY_BY_EXTERNAL_ID: Final = statements.select(_KEY_TABLE, _KEY, "external_id = $3")
LOCK_KEY: Final = GET_KEY + " FOR UPDATE"
PAGE_OF_KEYS: Final = statements.page(_KEY_TABLE, _KEY, "api_key_id")
UPDATE_KEY: Final = statements.update(
    _KEY_TABLE, "api_key_id", ("expires_at", "revoked_at", "replaced_by_id", "revision", "updated_at")
)


def _account(row: asyncpg.Record | None) -> Account | None:
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    values["status"] = AccountStatus(values["status"])
    return Account(**values)


def _key(row: asyncpg.Record | None) -> ApiKey | None:
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    values["scopes"] = tuple(values["scopes"])
    values["kind"] = KeyKind(values["kind"])
    return ApiKey(**values)


async def insert_account(tx: Transaction, account: Account) -> None:
    await tx.conn.execute(
        INSERT_ACCOUNT, account.account_id, account.external_id, account.display_name, account.status.value,
        account.revision, account.created_at, account.updated_at, dict(account.limits),
    )  # fmt: skip


async def get_account(tx: Transaction, account_id: str) -> Account | None:
    return _account(await tx.conn.fetchrow(GET_ACCOUNT, account_id))


async def get_account_by_external_id(tx: Transaction, external_id: str) -> Account | None:
    return _account(await tx.conn.fetchrow(GET_ACCOUNT_BY_EXTERNAL_ID, external_id))


async def lock_account(tx: Transaction, account_id: str) -> Account | None:
    return _account(await tx.conn.fetchrow(LOCK_ACCOUNT, account_id))


async def page_of_accounts(tx: Transaction, after: str, limit: int) -> Sequence[Account]:
    rows = await tx.conn.fetch(PAGE_OF_ACCOUNTS, after, limit)
    return [found for row in rows if (found := _account(row)) is not None]


async def update_account_status(tx: Transaction, account: Account) -> None:
    await tx.conn.execute(
        UPDATE_ACCOUNT_STATUS, account.account_id, account.status.value, account.revision, account.updated_at
    )


async def update_account(tx: Transaction, account: Account) -> None:
    await tx.conn.execute(
        UPDATE_ACCOUNT, account.account_id, account.external_id, account.display_name, dict(account.limits),
        account.revision, account.updated_at,
    )  # fmt: skip


async def insert_key(tx: Transaction, key: ApiKey, key_hash: bytes) -> None:
    await tx.conn.execute(
        INSERT_KEY, tx.tenant.account_id, tx.tenant.mode.value, key.api_key_id, key.external_id, key.display_name,
        list(key.scopes), key.hint, key.expires_at, key.revoked_at, key.replaced_by_id, key.revision, key.created_at,
        key.updated_at, key.kind.value, key_hash,
    )  # fmt: skip


async def get_key(tx: Transaction, api_key_id: str) -> ApiKey | None:
    return _key(await tx.conn.fetchrow(GET_KEY, tx.tenant.account_id, tx.tenant.mode.value, api_key_id))


async def get_key_by_external_id(tx: Transaction, external_id: str) -> ApiKey | None:
    return _key(await tx.conn.fetchrow(GET_KEY_BY_EXTERNAL_ID, tx.tenant.account_id, tx.tenant.mode.value, external_id))


async def lock_key(tx: Transaction, api_key_id: str) -> ApiKey | None:
    return _key(await tx.conn.fetchrow(LOCK_KEY, tx.tenant.account_id, tx.tenant.mode.value, api_key_id))


async def page_of_keys(tx: Transaction, after: str, limit: int) -> Sequence[ApiKey]:
    rows = await tx.conn.fetch(PAGE_OF_KEYS, tx.tenant.account_id, tx.tenant.mode.value, after, limit)
    return [found for row in rows if (found := _key(row)) is not None]


async def update_key(tx: Transaction, key: ApiKey) -> None:
    await tx.conn.execute(
        UPDATE_KEY, tx.tenant.account_id, tx.tenant.mode.value, key.api_key_id, key.expires_at, key.revoked_at,
        key.replaced_by_id, key.revision, key.updated_at,
    )  # fmt: skip
