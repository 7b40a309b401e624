"""The tail: what a process knows of the record's changes, until when it may rely on that, and what it lets into memory.

Everything but asking is synchronous: nothing is decided on the two sides of an `await`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from shared.clock import Clock
from shared.freshness.changes import ChangeMap
from shared.freshness.discard import Discard
from shared.freshness.lease import KNOWN_FOR_S, LeaseTerms
from shared.freshness.memory import Fact, Memory
from shared.freshness.metrics import TailMetrics
from shared.freshness.poll import MAX_CHANGES, Polled, Source
from shared.freshness.snapshot import Snapshot, Stamp
from shared.freshness.token import Revision
from shared.observe.logging import get_logger
from shared.tasks import TaskGroupTracker

MAX_MAP: Final = 200_000
"""Transactions in the map of changes; with more everything is dropped."""
SLICE: Final = 1000
"""Changes that are applied at once: about a millisecond."""
WINDOW_S: Final = 15 * 60.0
"""How far back the base is, and so how old a fact of a store beside the record may be."""
BASE_EVERY_S: Final = 60.0
RETENTION_S: Final = 25 * 60.0
"""A gap between two polls after which the log may have been trimmed meanwhile; it keeps 30 minutes."""
LEAST_INTERVAL_S: Final = 0.05
"""A lease shorter than four of these runs out between polls, and calls ask for one."""
FIRST_WITHIN_S: Final = 5.0
DROP_ALL: Final = "drop_all"

_log = get_logger(__name__)


class Admission(Enum):
    """What became of facts that were read."""

    ADMITTED = auto()
    """Each is in memory, but those that have changed since."""
    AHEAD = auto()
    """They know more than the tail: ask again after the next poll."""
    REFUSED = auto()
    """They are of another epoch, or older than the base."""


@dataclass(frozen=True, slots=True)
class State:
    """What the last poll found.

    Attributes:
        stamp: The last applied state of the record; all facts in memory have the value that they had in it.
        at: The record's time then.
        asked_at: When the poll was sent, in boot time.
        fresh_until: Until when memory may answer, in boot time.
        terms: How long leases and waits are.
    """

    stamp: Stamp
    at: datetime
    asked_at: float
    fresh_until: float
    terms: LeaseTerms


class Tail:
    """Follows the record's changes.

    Args:
        source: Where it asks.
        memory: What it takes facts out of when they change.
        kinds: The kinds of facts that may be in memory; a change of another kind drops everything.
        clock: For boot time.
        metrics: What it counts.
        window_s: How far back the base stays.
    """

    def __init__(
        self,
        source: Source,
        memory: Memory,
        kinds: frozenset[str],
        clock: Clock,
        metrics: TailMetrics,
        *,
        window_s: float = WINDOW_S,
    ) -> None:
        self._source = source
        self._memory = memory
        self._kinds = kinds
        self._clock = clock
        self._metrics = metrics
        self._window_s = window_s
        self._state: State | None = None
        self._base: Snapshot | None = None
        self._changes = ChangeMap()
        self._discard = Discard()
        self._tidying = TaskGroupTracker()
        self._bases: deque[tuple[float, Snapshot]] = deque()
        self._applying = False
        metrics.watch_age(lambda: 0.0 if self._state is None else clock.boottime() - self._state.asked_at)
        self._wanted = asyncio.Event()
        self._next: asyncio.Future[bool] | None = None
        self._listeners: list[Callable[[Sequence[str] | None], None]] = []

    @property
    def ready(self) -> bool:
        """Whether it has polled once."""
        return self._state is not None

    @property
    def state(self) -> State:
        """What the last poll found. RuntimeError before the first."""
        if self._state is None:
            raise RuntimeError("the tail has not polled yet")
        return self._state

    def fresh(self) -> bool:
        """Whether memory may answer, at this moment."""
        return self._state is not None and self._clock.boottime() < self._state.fresh_until

    @property
    def age_s(self) -> float | None:
        """How old the state is; None while changes that it lacks are being applied."""
        return None if self._applying else self._clock.boottime() - self.state.asked_at

    def now(self) -> datetime:
        """The record's time at this moment, never behind it, and ahead by what a poll takes at most."""
        state = self.state
        return state.at + timedelta(seconds=self._clock.boottime() - state.asked_at)

    def moment(self) -> datetime | None:
        """`now`, where memory may answer; None where it may not."""
        state = self._state
        if state is None or (boottime := self._clock.boottime()) >= state.fresh_until:
            return None
        return state.at + timedelta(seconds=boottime - state.asked_at)

    def has(self, revision: Revision) -> bool:
        """Whether the state includes a write."""
        stamp = self.state.stamp
        return (
            revision.epoch == stamp.epoch
            and revision.system_id == stamp.system_id
            and stamp.snapshot.sees(revision.xid)
        )

    def listen(self, listener: Callable[[Sequence[str] | None], None]) -> Callable[[], None]:
        """Calls back with the keys that changed, right before the state that includes them, and with None after a drop.
        What is returned ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def admit(self, stamp: Stamp, facts: Iterable[Fact]) -> Admission:
        """Takes into memory what was read at `stamp`, as far as it has the value that it has in the tail's state."""
        if not self.ready or self._is_foreign(stamp) or self._is_before_base(stamp):
            return Admission.REFUSED
        if self._is_ahead(stamp):
            return Admission.AHEAD
        for fact in facts:
            if self._changes.allows(fact.key, stamp.snapshot):
                self._memory.put(fact)
            else:
                self._metrics.refused.inc()
        return Admission.ADMITTED

    def _is_foreign(self, stamp: Stamp) -> bool:
        """Whether its transaction ids mean nothing to us."""
        return not stamp.is_of(self.state.stamp)

    def _is_before_base(self, stamp: Stamp) -> bool:
        """Whether there are changes that neither it nor the map knows of."""
        return self._base is None or not stamp.snapshot.covers(self._base)

    def _is_ahead(self, stamp: Stamp) -> bool:
        """Whether it knows more than the tail, and so than the other facts in memory."""
        return not self.state.stamp.snapshot.covers(stamp.snapshot)

    def ask(self) -> None:
        """Asks for a poll that begins from now on."""
        self._wanted.set()

    async def poll(self) -> bool:
        """Asks for a poll and waits for it, with all who ask meanwhile; whether it went well."""
        self.ask()
        return await self.polled()

    async def polled(self) -> bool:
        """Waits for the next poll to begin, whenever that is, and to end; whether it went well."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._next)

    async def wait_s(self) -> float | None:
        """How long after now no lease is left that began before now; None where that is not known, the record being away."""
        if not self.fresh() and not await self.poll() and not self._known():
            return None
        return self.state.terms.wait_s

    async def run(self) -> None:
        """Polls for as long as the process lives, a quarter of L apart, and at once when somebody asks."""
        try:
            while True:
                waiting, self._next = self._next, None
                self._wanted.clear()
                went_well = False
                try:
                    went_well = await self._try_to_poll()
                finally:
                    if waiting is not None:
                        waiting.set_result(went_well)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_s()):
                        await self._wanted.wait()
        finally:
            if self._next is not None:
                self._next.set_result(False)
            await self._tidying.drain(0.0)
            await self._source.close()

    async def first(self) -> None:
        """The first poll, before which nothing is served. What keeps it from going well is raised."""
        self._base = await self._source.base(timedelta(seconds=self._window_s))
        await self._poll(self._base, MAX_MAP, FIRST_WITHIN_S)

    async def _try_to_poll(self) -> bool:
        try:
            if self._state is None:
                await self.first()
            else:
                await self._poll(self._state.stamp.snapshot, MAX_CHANGES, self._within_s())
        except Exception as error:  # noqa: BLE001 - whatever it was, the next poll tries again, and the lease runs out
            self._metrics.failed.inc()
            _log.warning("poll failed", error=type(error).__name__)
            return False
        return True

    async def _poll(self, since: Snapshot | None, most: int, within_s: float) -> None:
        asked_at = self._clock.boottime()
        polled = await self._source.poll(since, most, within_s)
        self._applying = True
        try:
            await self._apply(polled, asked_at)
        finally:
            self._applying = False
        self._metrics.polled(self._clock.boottime() - asked_at, len(polled.keys))
        self._move_base()
        if self._discard:
            self._tidying.spawn(self._discard.free(), "facts that were dropped")

    async def _apply(self, polled: Polled, asked_at: float) -> None:
        """Evicts what changed, in slices, and only after the last one relies on the new state."""
        state = State(polled.stamp, polled.at, asked_at, self._lease_end(polled, asked_at), polled.terms)
        if self._state is not None and not self.fresh():
            self._metrics.lapsed.inc()
        if (why := self._why_drop(polled, asked_at)) is not None:
            self._drop(state, why)
            return
        for start in range(0, len(polled.keys), SLICE):
            if start:
                await asyncio.sleep(0)
            end = start + SLICE
            for key, xid in zip(polled.keys[start:end], polled.xids[start:end], strict=True):
                self._memory.drop(key)
                self._changes.add(key, xid)
        if len(self._changes) > MAX_MAP:
            self._drop(state, "map_full")
            return
        if self._base is None:
            self._base = polled.stamp.snapshot
        if polled.keys:
            for listener in tuple(self._listeners):
                listener(polled.keys)
        self._state = state

    def _lease_end(self, polled: Polled, asked_at: float) -> float:
        return asked_at + polled.terms.lease_s

    def _why_drop(self, polled: Polled, asked_at: float) -> str | None:
        """Why nothing that is known may be relied on any more; None when it may."""
        known = self._state
        if known is not None and not polled.stamp.is_of(known.stamp):
            return "epoch"
        if polled.too_many:
            return "too_many"
        if DROP_ALL in polled.kinds:
            return "drop_all"
        if not self._kinds.issuperset(polled.kinds):
            return "unknown_kind"
        if known is not None and (
            asked_at - known.asked_at > RETENTION_S or (polled.at - known.at).total_seconds() > RETENTION_S
        ):
            return "gap"
        return None

    def _drop(self, state: State, why: str) -> None:
        self._discard.add(*self._memory.clear(), self._changes.clear())
        self._bases.clear()
        self._base = state.stamp.snapshot
        self._metrics.dropped.labels(why).inc()
        _log.warning("facts dropped", why=why)
        for listener in tuple(self._listeners):
            listener(None)
        self._state = state

    def _move_base(self) -> None:
        """Once a minute lets the base follow, as far behind as the window is."""
        now, snapshot = self.state.asked_at, self.state.stamp.snapshot
        if self._bases and now - self._bases[-1][0] < BASE_EVERY_S:
            return
        self._bases.append((now, snapshot))
        passed: Snapshot | None = None
        while self._bases and now - self._bases[0][0] >= self._window_s:
            _, passed = self._bases.popleft()
        if passed is None:
            return
        self._base = passed  # first: entries that are still in the map are then too many, never too few
        self._tidying.spawn(self._forget(passed), "changes that the base sees")

    async def _forget(self, base: Snapshot) -> None:
        """Beside the polls: with a full map it takes longer than a lease lasts on a busy machine."""
        for n, key in enumerate(self._changes.keys()):
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            self._changes.forget(key, base)

    def _interval_s(self) -> float:
        l_s = 0.25 if self._state is None else self._state.terms.lease_s
        return max(l_s / 4, LEAST_INTERVAL_S)

    def _within_s(self) -> float:
        return max(self.state.terms.lease_s / 2, LEAST_INTERVAL_S)

    def _known(self) -> bool:
        """Whether what is known of L is young enough to count on."""
        return self._state is not None and self._clock.boottime() - self._state.asked_at < KNOWN_FOR_S
