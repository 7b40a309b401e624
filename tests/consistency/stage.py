"""A stage for scripted interleavings: processes whose polls and loads a test holds, on one real record.

A process here is all that a process has between a request and the record: tail, memory, reader and loads. Its clock stands
still unless the test turns it, and it polls only when it is asked to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self
from uuid import UUID, uuid4

import asyncpg

from shared.db.pool import Database, PostgresTarget, connected
from shared.db.roles import Role
from shared.facts.following import KINDS
from shared.facts.license import Loaded, Wanted
from shared.facts.license_reader import LicenseFactsReader
from shared.freshness.memory import Fact, Memory
from shared.freshness.metrics import ReadMetrics, TailMetrics
from shared.freshness.poll import Polled, RecordSource, Source
from shared.freshness.reader import Beside, Reader
from shared.freshness.snapshot import Snapshot, Stamp
from shared.freshness.tail import Tail
from shared.tenancy import Mode, Tenant
from tests.helpers.record import Scratch, insert, sample
from tests.helpers.redis_tier import TurnedClock

MEMORY_BYTES = 1 << 20


class Gate:
    """Where a test stops whoever passes. Open until it is shut."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._reached = asyncio.Event()

    def shut(self) -> None:
        self._open.clear()
        self._reached.clear()

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        """Waits until somebody stands before it."""
        async with asyncio.timeout(10):
            await self._reached.wait()

    async def passed(self) -> None:
        self._reached.set()
        await self._open.wait()


class HeldSource:
    """Polls that the test holds before they are sent, or after the reply is there; `change` may alter replies."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.before, self.after = Gate(), Gate()
        self.change: Callable[[Polled], Polled] = lambda polled: polled
        self.most: int | None = None

    async def base(self, window: timedelta) -> Snapshot | None:
        return await self._source.base(window)

    async def poll(self, since: Snapshot | None, most: int, within_s: float) -> Polled:
        await self.before.passed()
        polled = await self._source.poll(since, most if self.most is None else self.most, within_s)
        await self.after.passed()
        return self.change(polled)

    async def close(self) -> None:
        await self._source.close()


class HeldDatabase(Database):
    """Loads whose replies the test holds."""

    replies: Gate
    loads: int = 0

    @classmethod
    @asynccontextmanager
    async def held(cls, target: PostgresTarget) -> AsyncGenerator[Self]:
        """Opened, and closed in the end."""
        async with cls.opened(target, Role.FACTS) as db:
            db.replies = Gate()
            yield db

    async def load(self, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        rows = await super().load(statement, *arguments)
        self.loads += 1
        await self.replies.passed()
        return rows


class StageTail(Tail):
    """Polls only when it is asked."""

    def _interval_s(self) -> float:
        return 3600.0


class Hostile:
    """A store beside the record that gives back whatever it ever got: by default the oldest, under any epoch."""

    def __init__(self) -> None:
        self.kept: dict[str, list[tuple[Stamp, tuple[Fact, ...]]]] = {}

    async def get(self, root: str, epoch: UUID) -> tuple[Stamp, Sequence[Fact]] | None:
        del epoch
        await asyncio.sleep(0)
        return self.kept[root][0] if self.kept.get(root) else None

    def put(self, root: str, stamp: Stamp, facts: Iterable[Fact]) -> None:
        self.kept.setdefault(root, []).append((stamp, tuple(facts)))


@dataclass(frozen=True)
class Process:
    """What stands between requests and the record."""

    clock: TurnedClock
    memory: Memory
    tail: Tail
    tail_metrics: TailMetrics
    source: HeldSource
    db: HeldDatabase
    reader: Reader
    licenses: LicenseFactsReader
    polling: asyncio.Task[None]

    async def poll(self) -> None:
        """One poll, all applied."""
        async with asyncio.timeout(10):
            assert await self.tail.poll()


@dataclass(frozen=True)
class Cast:
    """A license with all around it, in an account of its own."""

    scratch: Scratch
    admin: asyncpg.Connection = field(repr=False)
    rows: dict[str, dict[str, Any]] = field(repr=False)
    tenant: Tenant

    @property
    def license_id(self) -> str:
        return self.rows["license.license"]["license_id"]

    @property
    def wanted(self) -> Wanted:
        return Wanted((), self.license_id)

    @property
    def by_key(self) -> Wanted:
        return Wanted((bytes.fromhex(self.rows["license.license_key"]["key_hash"][2:]),), None)

    async def run(self, statement: str, conn: asyncpg.Connection | None = None) -> None:
        """A statement about the account, whose id is $1, committed unless `conn` has a transaction open."""
        await (conn or self.admin).execute(statement, self.tenant.account_id)

    async def revoke(self, conn: asyncpg.Connection | None = None) -> None:
        await self.run("UPDATE license.license SET status = 'revoked' WHERE account_id = $1", conn)

    async def revoke_unlogged(self) -> None:
        """A change that the log does not show, as where the log is lost or says it in another way."""
        async with self.admin.transaction():
            await self.revoke()
            await self.admin.execute("DELETE FROM record.change_log WHERE xid = pg_current_xact_id()")

    async def seen_by(self, process: Process) -> Loaded:
        """What a process answers."""
        async with asyncio.timeout(10):
            return await process.licenses.one(self.tenant, self.wanted)

    async def status_by(self, process: Process) -> str:
        loaded = await self.seen_by(process)
        assert loaded.facts is not None
        return loaded.facts.status

    def held_by(self, process: Process) -> str | None:
        """The status that a process has in memory and may answer; None where it must ask."""
        loaded = process.licenses.held(self.tenant, self.wanted)
        return None if loaded is None or loaded.facts is None else loaded.facts.status

    async def learned_by(self, process: Process) -> None:
        """Lets the license into the memory of a process."""
        await self.status_by(process)
        await process.poll()
        await self.status_by(process)
        assert self.held_by(process) == "active"


MARK_BOTH = """
    WITH policy AS (UPDATE license.policy SET max_uses = 77 WHERE account_id = $1)
    UPDATE license.license SET max_uses_override = 77 WHERE account_id = $1
"""
"""Changes a license and its policy in one transaction: whoever sees one of the two alone has a mix."""


def marks(loaded: Loaded | None) -> tuple[bool, bool]:
    """Whether the change of the license is seen, and that of the policy."""
    assert loaded is not None
    assert loaded.facts is not None
    return loaded.facts.max_uses_override == 77, loaded.facts.max_uses == 77


@asynccontextmanager
async def acting(scratch: Scratch) -> AsyncGenerator[Cast]:
    """An account with a license that is active."""
    tenant = Tenant(f"acc_{uuid4().hex}", Mode.TEST)
    rows = sample(tenant, 0)
    async with scratch.connect() as admin:
        async with admin.transaction():
            for table, row in rows.items():
                if not table.startswith("record.") and table != "license.boundary_recheck":
                    await insert(admin, table, row)
        yield Cast(scratch, admin, rows, tenant)


@asynccontextmanager
async def process_on(
    scratch: Scratch,
    *,
    tail_type: type[Tail] = StageTail,
    reader_type: type[Reader] = Reader,
    beside: Beside | None = None,
    clock: TurnedClock | None = None,
    kinds: frozenset[str] = KINDS,
    source: Source | None = None,
) -> AsyncGenerator[Process]:
    """A process that has polled, and polls again whenever `poll` is called or a read asks."""
    target = PostgresTarget(scratch.dsn())
    clock = clock or TurnedClock()
    memory = Memory(MEMORY_BYTES)
    held = HeldSource(source or RecordSource(lambda: connected(target, Role.FACTS)))
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(HeldDatabase.held(target))
        metrics = TailMetrics(memory)
        tail = tail_type(held, memory, kinds, clock, metrics)
        reader = reader_type(tail, memory, ReadMetrics(), beside)
        await tail.first()
        polling = asyncio.create_task(tail.run())
        process = Process(clock, memory, tail, metrics, held, db, reader, LicenseFactsReader(db, reader), polling)
        await process.poll()
        try:
            yield process
        finally:
            for gate in (held.before, held.after, db.replies):
                gate.open()
            tail.ask()  # for what a load of this test still waits for
            await reader.close()
            polling.cancel()
            with suppress(asyncio.CancelledError):
                await polling


def with_system_id(system_id: int) -> Callable[[Polled], Polled]:
    """Replies of another cluster."""
    return lambda polled: replace(polled, stamp=replace(polled.stamp, system_id=system_id))
