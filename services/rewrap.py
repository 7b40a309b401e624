"""Seals what is sealed under the newest version of the KEK, so that an older one can go. `lictor keys rewrap`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.license import account_store, key_store, signing_key_store
from shared.crypto import keyring
from shared.crypto.keyring import FileKeyring, Place, UnwrapError, Wrapped
from shared.db.pool import Database, PostgresTarget, Transaction, read_passwords
from shared.db.roles import Role
from shared.tenancy import OPERATOR_TENANT, Mode, Tenant

BATCH_ROWS: Final = 200
ACCOUNTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Sealed:
    """A table of what is sealed: its rows under versions before one, in the order of their ids, and how one is changed."""

    first: Any
    """What is before all ids."""
    hold_before: Callable[[Transaction, int, Any, int], Awaitable[Sequence[tuple[Any, Place, Wrapped]]]]
    reseal: Callable[[Transaction, Any, Wrapped], Awaitable[None]]


TABLES: Final = (
    Sealed(b"", key_store.hold_sealed_before, key_store.reseal),
    Sealed("", signing_key_store.hold_sealed_before, signing_key_store.reseal),
)


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """How many keys are sealed under `version` that were not, and how many did not open; `why` is of the first of those."""

    version: int
    rewrapped: int = 0
    unopened: int = 0
    why: str = ""

    def plus(self, rewrapped: int, failures: list[str]) -> Rewrapped:
        why = self.why or (failures[0] if failures else "")
        return Rewrapped(self.version, self.rewrapped + rewrapped, self.unopened + len(failures), why)


async def rewrap(env: Mapping[str, str], *, batch_rows: int = BATCH_ROWS) -> Rewrapped:
    """Goes through all accounts, a transaction for each batch; what is done stays done when it is stopped.

    Reads LICTOR_POSTGRES_DSN, LICTOR_POSTGRES_PASSWORD_FILE and LICTOR_KEK_FILE. Raises SecretFileError.
    """
    kek = keyring.load(Path(env["LICTOR_KEK_FILE"]))
    password_file = env.get("LICTOR_POSTGRES_PASSWORD_FILE")
    target = PostgresTarget(env["LICTOR_POSTGRES_DSN"], read_passwords(Path(password_file) if password_file else None))
    done = Rewrapped(kek.live_versions[0])
    async with Database.opened(target, Role.LICENSE, size=1) as db:
        after = ""
        while True:
            async with db.transaction(OPERATOR_TENANT, read_only=True) as tx:
                accounts = [found.account_id for found in await account_store.page_of_accounts(tx, after, ACCOUNTS)]
            for account_id in accounts:
                for mode in Mode:
                    for table in TABLES:
                        done = await _rewrap_table(
                            db, kek, Tenant(account_id, mode), table, done=done, batch_rows=batch_rows
                        )
            if len(accounts) < ACCOUNTS:
                return done
            after = accounts[-1]


async def _rewrap_table(
    db: Database, kek: FileKeyring, tenant: Tenant, table: Sealed, *, done: Rewrapped, batch_rows: int
) -> Rewrapped:
    after = table.first
    while True:
        async with db.transaction(tenant) as tx:
            batch = await table.hold_before(tx, done.version, after, batch_rows)
            failures: list[str] = []
            for row_id, place, sealed in batch:
                try:
                    key = await kek.unwrap(sealed, place)
                except UnwrapError as error:
                    failures.append(str(error))
                    continue
                await table.reseal(tx, row_id, await kek.wrap(key, place))
        done = done.plus(len(batch) - len(failures), failures)
        if len(batch) < batch_rows:
            return done
        after = batch[-1][0]
