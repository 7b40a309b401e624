"""Reads what is known of licenses: from memory, beside it or the record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from shared.db.pool import Database
from shared.facts.gathering import Gathering
from shared.facts.license import Loaded, Wanted, look
from shared.facts.license_loads import load_many
from shared.freshness.reader import Load, Reader, View
from shared.freshness.tail import State, Tail
from shared.freshness.token import Revision
from shared.tenancy import Tenant

T = TypeVar("T")
S = TypeVar("S")


class LicenseFactsReader:
    """An unknown, a foreign and a deleted license all look the same."""

    def __init__(self, db: Database, reader: Reader) -> None:
        self._db = db
        self._gathering = Gathering(db)
        self._reader = reader

    def knows(self, after: Revision) -> bool:
        """Whether what is in memory knows of a write."""
        return self._reader.tail.ready and self._reader.tail.has(after)

    @property
    def state(self) -> State:
        """The state of what is in memory."""
        return self._reader.tail.state

    async def bring(self, tenant: Tenant, wanted: Sequence[Wanted]) -> None:
        """Reads licenses at the record and waits until they are in memory, unless they have changed again meanwhile."""
        await self._reader.bring(lambda: load_many(self._db, tenant, wanted))

    def held(self, tenant: Tenant, wanted: Wanted) -> Loaded | None:
        """What memory says at this moment; None where it may not, or lacks something."""
        return self._reader.held(lambda view: look(view, tenant, wanted))

    def stale(self, tenant: Tenant, wanted: Wanted, after: Revision | None = None) -> Loaded | None:
        """What memory says while no lease lets it answer; None where it lacks something, or the write `after`."""
        return self._reader.stale(lambda view: look(view, tenant, wanted), after)

    async def or_stale(self, read: Callable[[], Awaitable[T]], stale: Callable[[], S | None]) -> T | S:
        """`read`, and where the record does not answer, `stale`. RECORD_UNREACHABLE where that is None."""
        return await self._reader.or_stale(read, stale)

    @property
    def tail(self) -> Tail:
        """What the memory goes by."""
        return self._reader.tail

    async def one(self, tenant: Tenant, wanted: Wanted, after: Revision | None = None) -> Loaded:
        """One license, at least as fresh as the write `after`."""

        def looked(view: View) -> Loaded | None:
            return look(view, tenant, wanted)

        async def load() -> Load:
            return await self._gathering.load(tenant, wanted)

        return await self._reader.read(_root(tenant, wanted), looked, load, after=after)

    async def recorded(self, tenant: Tenant, wanted: Wanted) -> Loaded:
        """One license as the record has it from now on, with what is counted there."""

        async def load() -> Load:
            return await self._gathering.load(tenant, wanted)

        return await self._reader.load(lambda view: look(view, tenant, wanted), load)

    async def many(self, tenant: Tenant, wanted: Sequence[Wanted], after: Revision | None = None) -> list[Loaded]:
        """Each in its place, all at one state of the record."""

        def looked(view: View) -> list[Loaded] | None:
            return _all(view, tenant, wanted)

        async def load() -> Load:
            return await load_many(self._db, tenant, wanted)

        return await self._reader.read("", looked, load, after=after)

    async def many_recorded(self, tenant: Tenant, wanted: Sequence[Wanted], *, keep: bool = True) -> list[Loaded]:
        """As `many`, from the record; without `keep` memory stays as it is."""

        async def load() -> Load:
            return await load_many(self._db, tenant, wanted)

        return await self._reader.load(lambda view: _all(view, tenant, wanted), load, keep=keep)


def _all(view: View, tenant: Tenant, wanted: Sequence[Wanted]) -> list[Loaded] | None:
    found: list[Loaded] = []
    for one in wanted:
        loaded = look(view, tenant, one)
        if loaded is None:
            return None
        found.append(loaded)
    return found


def _root(tenant: Tenant, wanted: Wanted) -> str:
    name = wanted.license_id if wanted.license_id is not None else wanted.key_hashes[0].hex()
    kind = "license" if wanted.license_id is not None else "license_key"
    root = f"{kind}:{tenant.account_id}/{tenant.mode.value}/{name}"
    return root if wanted.machine is None else f"{root}/{wanted.machine.mark}"
