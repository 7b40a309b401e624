"""Reads for decisions: from memory where that may answer, else by one statement at the record.

A decision uses the facts in memory, which all have their value at one state of the record, or the facts of one statement,
and never some of both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Final, Protocol, TypeVar
from uuid import UUID

from shared.db.faults import record_unreachable, translated
from shared.errors import DomainError, Reason
from shared.freshness.memory import Fact, Memory
from shared.freshness.metrics import ReadMetrics
from shared.freshness.snapshot import Stamp
from shared.freshness.tail import Admission, State, Tail
from shared.freshness.token import Revision
from shared.tasks import TaskGroupTracker

LOAD_WITHIN_S: Final = 2.0
"""What a load may take, whoever waits for it."""
PATIENCE_S: Final = 0.25
"""What the record may take where memory could answer without a lease: hot calls have a second, and read twice."""

T = TypeVar("T")
S = TypeVar("S")


class Source(Enum):
    """Where the facts of a decision came from; the names are those of `Freshness.Source`."""

    RECORD = auto()
    LEASED = auto()
    GRACE = auto()


@dataclass(frozen=True, slots=True)
class View:
    """What a decision reads: all of it at one state of the record.

    Attributes:
        get: A fact by its key; None where nothing is known of it.
        at: The record's time at which the facts held.
        now: The record's time to decide at: the same, or later where the facts are from memory.
        source: Where they came from.
        seen: The facts that were found in memory so far; nothing is kept of those that a load brought.
        counts: What is counted at the record and is no fact, by what it is of; empty where the facts are from memory.
    """

    get: Callable[[str], Fact | None]
    at: datetime
    now: datetime
    source: Source
    seen: Sequence[Fact]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    """What one statement read.

    Attributes:
        stamp: The state that it saw; None where the epoch's row was missing.
        at: The record's time then.
        facts: All facts of the decision, the absent ones among them, by their keys.
        counts: As in `View`.
    """

    stamp: Stamp | None
    at: datetime
    facts: Mapping[str, Fact]
    counts: Mapping[str, int] = field(default_factory=dict[str, int])

    def view(self) -> View:
        """For a decision from these facts alone."""
        return View(self.facts.get, self.at, self.at, Source.RECORD, (), self.counts)


Look = Callable[[View], T | None]
"""Reads what a decision needs; None where a fact is not known."""


class Beside(Protocol):
    """A store of facts beside the record. It is never trusted to be up to date, only not to be forged."""

    async def get(self, root: str, epoch: UUID) -> tuple[Stamp, Sequence[Fact]] | None:
        """What was put under the name of a decision; None where nothing is found in time."""
        ...

    def put(self, root: str, stamp: Stamp, facts: Iterable[Fact]) -> None:
        """Stores what a load has read. Never waits and never fails."""
        ...


@dataclass(slots=True)
class Flight:
    """A load that others may join."""

    read: asyncio.Future[Load]
    """What it has read, for whoever began it."""
    settled: asyncio.Future[None]
    """Done once its facts are in memory, or refused."""
    joined: bool = field(default=False)


class Reader:
    """Answers from memory, or loads. `beside` is asked between the two where there is one."""

    def __init__(self, tail: Tail, memory: Memory, metrics: ReadMetrics, beside: Beside | None = None) -> None:
        self.tail = tail
        self._memory = memory
        self._metrics = metrics
        self._beside = beside
        self._flights: dict[str, Flight] = {}
        self._away: State | None = None
        self._tasks = TaskGroupTracker()

    def held(self, look: Look[T]) -> T | None:
        """What memory answers at this moment; None where it lacks something, or may not answer."""
        tail = self.tail
        if not tail.fresh():
            return None
        seen: list[Fact] = []

        def get(key: str) -> Fact | None:
            fact = self._memory.get(key)
            if fact is not None:
                seen.append(fact)
            return fact

        return look(View(get, tail.state.at, tail.now(), Source.LEASED, seen, _NO_COUNTS))

    async def read(
        self, root: str, look: Look[T], load: Callable[[], Awaitable[Load]], *, after: Revision | None = None
    ) -> T:
        """Answers from memory as soon as that may answer and has all, else by a load that begins from now on.

        Args:
            root: What the decision begins with: reads with the same one load once. Empty for one that nobody shares.
            look: The decision, or what it is made from.
            load: Reads all facts that `look` asks for, at the record.
            after: A write that the answer must know of.

        Raises:
            DomainError: What `load` raises.
        """
        if after is not None and not self.tail.has(after):
            await self.tail.poll()
            if not self.tail.has(after):  # of another epoch, or the record does not answer
                return await self.load(look, load)
        elif not self.tail.fresh():
            self._metrics.lease_over.inc()
            await self.tail.poll()
        if (found := self.held(look)) is not None:
            return found
        if not root:
            loaded = await self._loaded(load)
            self._tasks.spawn(self._settle(loaded, joined=lambda: False), "facts of a load")
            return _decided(look, loaded)
        if (flight := self._flights.get(root)) is not None:
            return await self._join(flight, look, load)
        flight = self._flights[root] = _new_flight()
        try:
            found = await self._from_beside(root, look)
        except BaseException:
            self._land(root, flight)
            raise
        if found is not None:
            self._land(root, flight)
            return found
        self._tasks.spawn(self._fly(root, flight, load), f"load of {root.partition(':')[0]}")
        return _decided(look, await asyncio.shield(flight.read))

    def stale(self, look: Look[T], after: Revision | None = None) -> T | None:
        """What memory says while no lease lets it answer; None where it lacks something, or the write `after`."""
        tail = self.tail
        if tail.fresh() or tail.age_s is None or (after is not None and not tail.has(after)):
            return None
        return look(View(self._memory.get, tail.state.at, tail.now(), Source.GRACE, (), _NO_COUNTS))

    async def or_stale(self, read: Callable[[], Awaitable[T]], stale: Callable[[], S | None]) -> T | S:
        """`read`, and where the record does not answer, `stale`: at once, as long as nothing has reached it since.

        Args:
            read: The normal way.
            stale: What may be answered without a lease; None for nothing.

        Raises:
            DomainError: RECORD_UNREACHABLE, and what else `read` raises.
        """
        found = None if self.tail.fresh() else stale()
        if found is not None and self._away is self.tail.state:
            return found
        try:
            if found is None:
                return await read()
            async with asyncio.timeout(PATIENCE_S):
                return await read()
        except TimeoutError:
            pass
        except DomainError as error:
            if error.reason is not Reason.RECORD_UNREACHABLE:
                raise
        if self.tail.fresh():  # again
            return await read()
        self._away = self.tail.state
        found = stale()
        if found is None:
            raise record_unreachable()
        return found

    async def load(self, look: Look[T], load: Callable[[], Awaitable[Load]], *, keep: bool = True) -> T:
        """Reads at the record, and joins nobody. What it read is let into memory where that is possible at once, unless it
        is more than anybody will ask for again."""
        loaded = await self._loaded(load)
        if keep and loaded.stamp is not None:
            self.tail.admit(loaded.stamp, loaded.facts.values())
        return _decided(look, loaded)

    async def bring(self, load: Callable[[], Awaitable[Load]]) -> None:
        """Reads at the record, and waits until what it read is in memory, or refused."""
        await self._settle(await self._loaded(load), joined=lambda: True)

    @property
    def memory(self) -> Memory:
        """For those who keep answers made from it."""
        return self._memory

    async def close(self) -> None:
        """Waits for the loads that run."""
        await self._tasks.drain(LOAD_WITHIN_S)

    async def _from_beside(self, root: str, look: Look[T]) -> T | None:
        if self._beside is None or not self.tail.fresh():
            return None
        known = await self._beside.get(root, self.tail.state.stamp.epoch)
        if known is None or self.tail.admit(*known) is not Admission.ADMITTED:
            return None
        found = self.held(look)
        if found is not None:
            self._metrics.beside.inc()
        return found

    async def _join(self, flight: Flight, look: Look[T], load: Callable[[], Awaitable[Load]]) -> T:
        """What a load has read may be older than a call that joins it. Once it is in memory it has its value at the tail's
        state."""
        if not flight.joined:
            flight.joined = True
            self.tail.ask()
        await asyncio.shield(flight.settled)
        found = self.held(look)
        return await self.load(look, load) if found is None else found

    async def _fly(self, root: str, flight: Flight, load: Callable[[], Awaitable[Load]]) -> None:
        """Loads for whoever began, then lets the facts into memory, for which the tail may have to catch up."""
        try:
            try:
                loaded = await self._loaded(load)
            except Exception as error:  # noqa: BLE001 - it is for whoever began
                flight.read.set_exception(error)
                flight.read.exception()  # who may be gone
                return
            flight.read.set_result(loaded)
            if self._beside is not None and loaded.stamp is not None:
                self._beside.put(root, loaded.stamp, loaded.facts.values())
            await self._settle(loaded, joined=lambda: flight.joined)
        finally:
            flight.read.cancel()  # where this was cancelled itself
            self._land(root, flight)

    def _land(self, root: str, flight: Flight) -> None:
        del self._flights[root]
        flight.settled.set_result(None)

    async def _loaded(self, load: Callable[[], Awaitable[Load]]) -> Load:
        self._metrics.loads.inc()
        with translated():
            async with asyncio.timeout(LOAD_WITHIN_S):
                loaded = await load()
        self._away = None
        return loaded

    async def _settle(self, loaded: Load, joined: Callable[[], bool]) -> None:
        """Lets the facts of a load into memory. Where the tail has to catch up first, nobody waits but those who have joined
        the load, and for them it is asked to hurry."""
        if loaded.stamp is None:
            return
        admission = self.tail.admit(loaded.stamp, loaded.facts.values())
        if admission is Admission.AHEAD:
            await (self.tail.poll() if joined() else self.tail.polled())
            self.tail.admit(loaded.stamp, loaded.facts.values())


def _new_flight() -> Flight:
    loop = asyncio.get_running_loop()
    return Flight(loop.create_future(), loop.create_future())


def _decided(look: Look[T], loaded: Load) -> T:
    decided = look(loaded.view())
    if decided is None:
        raise RuntimeError("a load has not read all that its decision needs")
    return decided


_NO_COUNTS: Final[Mapping[str, int]] = {}
