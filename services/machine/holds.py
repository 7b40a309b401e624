"""The leases that streams of a process hold. They are renewed together: many at once cost the record few transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Gauge

from services.machine import seat_store, terms_store
from services.machine.leases import seat_lost
from services.machine.seat_store import Held
from services.machine.terms import refuse_unusable
from shared.db.pool import Database
from shared.errors import DomainError, Reason, not_found
from shared.observe.logging import get_logger
from shared.tenancy import Tenant

MOST_EVERY_S: Final = 9.5
PARTS: Final = 4
"""A lease is renewed when this part of it has passed, give or take a tick: what is left when a stream ends is the rest."""
TICK_S: Final = 0.25
LATE_S: Final = 0.25
"""A tick that ends so much too late was held up by the process."""
BATCH: Final = 250

_log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class Hold:
    """A lease that a stream holds. `told` is set when there is something to look at: it was renewed, it was lost, or the machine
    has changed somehow."""

    tenant: Tenant
    license_id: str
    machine_id: str
    epoch: int
    holder: str
    lasts: timedelta
    expires_at: datetime
    told: asyncio.Event
    due_at: float = 0.0
    renewed: bool = False
    lost: DomainError | None = None
    good_until: float = field(default=0.0)
    """Until when, in the loop's time, the lease lasts by what is known here."""

    @property
    def every_s(self) -> float:
        return min(MOST_EVERY_S, self.lasts.total_seconds() / PARTS)

    def lose(self, error: DomainError) -> None:
        """The stream is to end with this."""
        self.lost = error
        self.told.set()


class Holds:
    """All that streams hold at a process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._holds: dict[tuple[Tenant, str], Hold] = {}
        self._wanted = asyncio.Event()
        self.gauge = Gauge("lictor_held_seats", "Seats that streams hold at this process", registry=None)
        self.gauge.set_function(lambda: len(self._holds))

    @asynccontextmanager
    async def renewed(self) -> AsyncGenerator[None]:
        """Renews for as long as the block runs."""
        task = asyncio.create_task(self._run(), name="renewals of held seats")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @contextmanager
    def opened(self, hold: Hold) -> Generator[None]:
        """Renews a lease while the block runs. An older stream of the same machine has lost it."""
        key, now = (hold.tenant, hold.machine_id), asyncio.get_running_loop().time()
        older = self._holds.get(key)
        if older is not None:
            older.lose(seat_lost(older.machine_id, older.epoch))
        hold.due_at, hold.good_until = now + hold.every_s, now + hold.lasts.total_seconds()
        self._holds[key] = hold
        try:
            yield
        finally:
            if self._is_open(hold):
                del self._holds[key]

    def ask(self, hold: Hold) -> None:
        """Renews a lease at once, and so finds out whether it is lost."""
        hold.due_at = 0.0
        self._wanted.set()

    def _is_open(self, hold: Hold) -> bool:
        return self._holds.get((hold.tenant, hold.machine_id)) is hold

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wanted.clear()
            due: dict[Tenant, list[Hold]] = {}
            for hold in self._holds.values():
                if hold.due_at <= loop.time() and hold.lost is None:
                    due.setdefault(hold.tenant, []).append(hold)
            for tenant, holds in due.items():
                for start in range(0, len(holds), BATCH):
                    await self._try_to_renew(tenant, holds[start : start + BATCH])
            await self._tick()

    async def _tick(self) -> None:
        """Until some may be due. A process that was held up hears first whose streams have ended meanwhile."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._wanted.wait()
        if loop.time() - begun > TICK_S + LATE_S:
            await asyncio.sleep(TICK_S)

    async def _try_to_renew(self, tenant: Tenant, holds: Sequence[Hold]) -> None:
        begun = asyncio.get_running_loop().time()
        for hold in holds:
            hold.due_at = begun + min(1.0, hold.every_s)  # where it fails, and nobody asks before
        try:
            await self._renew(tenant, holds, begun)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again, and the leases run out
            _log.warning("held seats were not renewed", error=type(error).__name__, seats=len(holds))

    async def _renew(self, tenant: Tenant, holds: Sequence[Hold], begun: float) -> None:
        ended: dict[Hold, DomainError] = {}
        async with self._db.transaction(tenant) as tx:
            # After the time that the leases count from: those whose streams have ended by then must not last from then on.
            holds = [hold for hold in holds if self._is_open(hold)]
            if not holds:
                return
            known = await terms_store.terms_of_many(tx, sorted({hold.license_id for hold in holds}))
            held: list[Held] = []
            for hold in holds:
                if hold.license_id not in known:
                    ended[hold] = not_found(Reason.LICENSE_NOT_FOUND, hold.license_id)
                    continue
                terms, first_activated_at = known[hold.license_id]
                try:
                    refuse_unusable(terms, "lease", tx.now, first_activated_at)
                except DomainError as refusal:
                    ended[hold] = refusal
                    continue
                ends_at = terms.ends_at(first_activated_at)
                held.append(Held(hold.machine_id, hold.epoch, hold.holder, hold.lasts, ends_at))
            renewed = await seat_store.renew_held(tx, held)
            now = tx.now
        for hold in holds:
            if hold in ended:
                hold.lose(ended[hold])
            elif hold.machine_id not in renewed:
                hold.lose(seat_lost(hold.machine_id, hold.epoch))
            else:
                hold.expires_at = renewed[hold.machine_id]
                hold.due_at = begun + hold.every_s
                hold.good_until = begun + (hold.expires_at - now).total_seconds()
                hold.renewed = True
                hold.told.set()
