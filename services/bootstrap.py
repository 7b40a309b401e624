"""First keys: an operator's, made by whoever administers the database, and a demo account for `lictor up`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import asyncpg

from services.license import account_store
from services.license.commands.create_account import create_account
from services.license.commands.create_api_key import NewKey, create_api_key
from shared.crypto import api_keys, root_secret
from shared.crypto.api_keys import KeyPrefix
from shared.crypto.hashing import SecretHasher
from shared.db.pool import Database, PostgresTarget, read_passwords
from shared.db.roles import Role
from shared.freshness.lease import LEASE, LeaseTerms
from shared.ids import Prefix, new_id
from shared.tenancy import ACCOUNT_SCOPES, OPERATOR_TENANT, Mode, Tenant

DEMO_EXTERNAL_ID: Final = "demo"
_ACTOR: Final = "bootstrap"


@dataclass(frozen=True, slots=True)
class DemoKeys:
    """Secret keys of the demo account, one per mode."""

    test_api_key: str
    live_api_key: str


async def bootstrap_operator_key(admin_dsn: str, secret_file: Path, out: Path) -> str:
    """Makes an operator key and writes it to `out`, which must not exist (0600); returns its id.

    FileExistsError when `out` exists: nothing is made then.
    """
    hasher = SecretHasher(root_secret.load(secret_file))
    secret = api_keys.generate(KeyPrefix.OPERATOR)
    operator_key_id = new_id(Prefix.OPERATOR_KEY)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # before the key exists in the database
    try:
        async with _as_owner(admin_dsn) as conn:
            await conn.execute(
                "INSERT INTO license.operator_key (operator_key_id, key_hash, display_name, hint) VALUES ($1, $2, $3, $4)",
                operator_key_id, hasher.hash(secret), _ACTOR, secret[-api_keys.HINT_CHARS :],
            )  # fmt: skip
        os.write(descriptor, f"{secret}\n".encode())
    except BaseException:
        out.unlink()  # noqa: ASYNC240 - one call, in a command that does nothing else
        raise
    finally:
        os.close(descriptor)
    return operator_key_id


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """What is known of an operator key; the key itself is nowhere."""

    operator_key_id: str
    hint: str
    created_at: datetime
    revoked_at: datetime | None


async def list_operator_keys(admin_dsn: str) -> list[OperatorKey]:
    """All operator keys, oldest first."""
    async with _as_owner(admin_dsn) as conn:
        rows = await conn.fetch(
            "SELECT operator_key_id, hint, created_at, revoked_at FROM license.operator_key ORDER BY operator_key_id"
        )
    return [OperatorKey(**row) for row in rows]


async def revoke_operator_key(admin_dsn: str, operator_key_id: str) -> bool:
    """Ends an operator key, and returns when it is ended on every process; False when there is none with this id that still
    works."""
    async with _as_owner(admin_dsn) as conn:
        done = await conn.execute(
            "UPDATE license.operator_key SET revoked_at = now() WHERE operator_key_id = $1 AND revoked_at IS NULL",
            operator_key_id,
        )
        row = await conn.fetchrow(LEASE)
    assert row is not None
    await asyncio.sleep(LeaseTerms(row["l_ms"], row["previous_l_ms"], row["just_changed"]).wait_s)
    return done == "UPDATE 1"


@asynccontextmanager
async def _as_owner(admin_dsn: str) -> AsyncGenerator[asyncpg.Connection]:
    conn = await asyncpg.connect(admin_dsn)
    try:
        await conn.execute(f"SET ROLE {Role.MIGRATE.value}")
        yield conn
    finally:
        await conn.close()


async def ensure_demo_account(env: Mapping[str, str]) -> DemoKeys:
    """Makes the demo account, or new keys of it where it is there already. Reads LICTOR_POSTGRES_* and the root secret."""
    password_file = env.get("LICTOR_POSTGRES_PASSWORD_FILE")
    target = PostgresTarget(env["LICTOR_POSTGRES_DSN"], read_passwords(Path(password_file) if password_file else None))
    hasher = SecretHasher(root_secret.load(Path(env["LICTOR_ROOT_SECRET_FILE"])))
    async with Database.opened(target, Role.LICENSE, size=1) as db, db.transaction(OPERATOR_TENANT) as tx:
        known = await account_store.get_account_by_external_id(tx, DEMO_EXTERNAL_ID)
        if known is None:
            made = await create_account(tx, hasher, actor=_ACTOR, display_name="Demo", external_id=DEMO_EXTERNAL_ID)
            return DemoKeys(made.test_api_key, made.live_api_key)
        secrets: dict[Mode, str] = {}
        for mode in (Mode.TEST, Mode.LIVE):
            inside = await tx.enter(Tenant(known.account_id, mode))
            again = NewKey(f"{mode.value.lower()} key", None, tuple(sorted(ACCOUNT_SCOPES)), None)
            secrets[mode] = (await create_api_key(inside, hasher, actor=_ACTOR, wanted=again)).secret
        return DemoKeys(secrets[Mode.TEST], secrets[Mode.LIVE])
