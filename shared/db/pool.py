"""The connections of a database role, and the transactions on them, each inside one tenant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import asyncpg

from shared.db.connections import Connections
from shared.db.faults import translated
from shared.db.migrate import no_database, refuse_incompatible
from shared.db.roles import Role, not_let_in, refuse_powerful
from shared.tenancy import Tenant

POOL_SIZE = 8
STATEMENT_TIMEOUT_S = 5.0
LOCK_TIMEOUT_MS = 2000
INTERRUPT_WITHIN_S = 1.0
# A day has 24 hours: Postgres would add one of 23 or 25 where the clocks of its own zone change.
_SETTINGS: Final = {"jit": "off", "TimeZone": "UTC"}
# Every statement over facts looks up a few rows by their keys. One plan, made once, is right for all of them, even one
# made while a table was still empty; planning the joins anew takes ten times as long as the reads.
POINT_READS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
}


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    """Where the record is. `passwords` are by role; a role without one connects without."""

    dsn: str = field(repr=False)
    passwords: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


def read_passwords(path: Path | None) -> Mapping[str, str]:
    """Lines of `role=password`. ValueError names a line that is not."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines() if path else (), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        role, equals, password = line.partition("=")
        if not equals:
            raise ValueError(f"{path}, line {number}: expected `role=password`")
        found[role.strip()] = password
    return found


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction inside one tenant. `now` is its time by Postgres."""

    conn: asyncpg.Connection
    tenant: Tenant
    now: datetime
    _entered: list[Tenant] = field(default_factory=list[Tenant])
    """Those that it was inside of since it began, in whoever's hands."""

    async def back(self) -> None:
        """Inside its own tenant again, where somebody has entered another one."""
        if self._entered:
            await self.enter(self.tenant)

    async def enter(self, tenant: Tenant) -> Transaction:
        """The same transaction inside another tenant: only for an operator who makes an account's first keys."""
        self._entered.append(tenant)
        await self.conn.execute(
            "SELECT set_config('lictor.account_id', $1, true), set_config('lictor.mode', $2, true)",
            tenant.account_id, tenant.mode.value,
        )  # fmt: skip
        return Transaction(self.conn, tenant, self.now, self._entered)


async def _prepare(conn: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await conn.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def connected(target: PostgresTarget, role: Role) -> asyncpg.Connection:
    """One connection as a role, with what all of ours have set."""
    settings = _SETTINGS | {"application_name": role.value} | (POINT_READS if role is Role.FACTS else {})
    conn = await asyncpg.connect(
        target.dsn, user=role.value, password=target.passwords.get(role.value), command_timeout=STATEMENT_TIMEOUT_S,
        server_settings=settings,
    )  # fmt: skip
    await _prepare(conn)
    return conn


class Database:
    """The connections of one role. Refuses to open as a role that could see past its tenant."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._ending: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, target: PostgresTarget, role: Role, *, size: int = POOL_SIZE) -> Self:
        """Connects. RoleRefusedError, MigrationError or an OSError says why a process must not start."""

        async def connect() -> asyncpg.Connection:
            return await connected(target, role)

        connections = Connections(connect, size)
        try:
            conn = await connections.acquire()
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise not_let_in(role) from error
        except asyncpg.InvalidCatalogNameError as error:
            raise no_database() from error
        try:
            await refuse_powerful(conn)
            await refuse_incompatible(conn)
        except BaseException:
            connections.terminate()
            raise
        connections.give_back(conn)
        return cls(connections)

    @classmethod
    @asynccontextmanager
    async def opened(cls, target: PostgresTarget, role: Role, *, size: int = POOL_SIZE) -> AsyncGenerator[Self]:
        """As `open`, closed in the end."""
        db = await cls.open(target, role, size=size)
        try:
            yield db
        finally:
            await db.close()

    async def close(self) -> None:
        """Waits for what is running, at most as long as a statement may take."""
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await self._connections.close()
        except TimeoutError:
            self._connections.terminate()

    async def load(self, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Runs one SELECT over fact functions, in a transaction of its own without an id."""
        with translated():
            async with self._lent() as conn:
                return await conn.fetch(statement, *arguments, timeout=STATEMENT_TIMEOUT_S)

    @asynccontextmanager
    async def transaction(self, tenant: Tenant, *, read_only: bool = False) -> AsyncGenerator[Transaction]:
        """A transaction inside `tenant`; row-level security shows and takes nothing else."""
        with translated():
            async with self._begun(read_only=read_only) as conn:
                row = await conn.fetchrow(
                    "SELECT now() AS now, set_config('lictor.account_id', $1, true), set_config('lictor.mode', $2, true), "
                    "set_config('lock_timeout', $3, true)",
                    tenant.account_id, tenant.mode.value, str(LOCK_TIMEOUT_MS),
                )  # fmt: skip
                assert row is not None
                yield Transaction(conn, tenant, row["now"])

    @asynccontextmanager
    async def across_tenants(self) -> AsyncGenerator[Any]:
        """A plain transaction for a worker's sweep over all tenants; only a worker role has policies for it."""
        with translated():
            async with self._begun(read_only=False) as conn:
                await conn.execute("SELECT set_config('lock_timeout', $1, true)", str(LOCK_TIMEOUT_MS))
                yield conn

    @asynccontextmanager
    async def _begun(self, *, read_only: bool) -> AsyncGenerator[asyncpg.Connection]:
        async with self._lent() as conn:
            transaction = conn.transaction(readonly=read_only)
            await transaction.start()
            try:
                yield conn
            except (asyncio.CancelledError, TimeoutError):
                raise  # it ends with its connection: a ROLLBACK would wait for the statement that took too long
            except BaseException:
                await transaction.rollback()
                raise
            await transaction.commit()

    @asynccontextmanager
    async def _lent(self) -> AsyncGenerator[asyncpg.Connection]:
        """A connection. Whoever is cancelled, or out of time, does not wait until Postgres has noticed: it may hang."""
        conn = await self._connections.acquire()
        try:
            yield conn
        except (asyncio.CancelledError, TimeoutError):
            task = asyncio.create_task(self._end(conn), name="end of an interrupted connection")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            raise
        except (asyncpg.InterfaceError, asyncpg.InternalClientError):
            conn.terminate()  # the driver itself does not know what it is at
            self._connections.give_back(conn)
            raise
        except BaseException:
            self._connections.give_back(conn)
            raise
        self._connections.give_back(conn)

    async def _end(self, conn: asyncpg.Connection) -> None:
        with suppress(Exception):
            async with asyncio.timeout(INTERRUPT_WITHIN_S):
                await conn.execute("ROLLBACK")  # runs when the interrupted statement has ended
        conn.terminate()
        self._connections.give_back(conn)
