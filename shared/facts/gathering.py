"""Loads of single licenses that wait for the record go together: a statement costs many times what another license in it does.

As in a queue of its own for each tenant: `WIDTH` statements are under way, and whoever comes meanwhile is in the next one. A load
still begins after whoever asks for it has asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from shared.db.pool import Database
from shared.facts.license import Wanted
from shared.facts.license_loads import load_each, load_one
from shared.freshness.reader import Load
from shared.tasks import TaskGroupTracker
from shared.tenancy import Tenant

WIDTH: Final = 2
"""Statements of a tenant that are under way at once."""
MOST: Final = 50
"""Licenses of a statement: what they bring is read in about two milliseconds of the loop."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    wanted: Wanted
    answer: asyncio.Future[Load]


@dataclass(slots=True)
class _Line:
    under_way: int = 0
    waiting: list[_Waiting] = field(default_factory=list[_Waiting])


class Gathering:
    """The loads of one process. A line exists while its tenant loads."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lines: dict[Tenant, _Line] = {}
        self._tasks = TaskGroupTracker()

    async def load(self, tenant: Tenant, wanted: Wanted) -> Load:
        """What the record says of one license, as `load_one`."""
        line = self._lines.setdefault(tenant, _Line())
        if line.under_way < WIDTH:
            line.under_way += 1
            try:
                return await load_one(self._db, tenant, wanted)
            finally:
                self._next(tenant, line)
        answer: asyncio.Future[Load] = asyncio.get_running_loop().create_future()
        line.waiting.append(_Waiting(wanted, answer))
        return await answer

    def _next(self, tenant: Tenant, line: _Line) -> None:
        """In place of a statement that has ended."""
        waiting = [one for one in line.waiting if not one.answer.done()]  # the others have gone
        together, line.waiting = waiting[:MOST], waiting[MOST:]
        if together:
            self._tasks.spawn(self._together(tenant, line, together), "loads of licenses")
            return
        line.under_way -= 1
        if not line.under_way:
            del self._lines[tenant]

    async def _together(self, tenant: Tenant, line: _Line, together: list[_Waiting]) -> None:
        try:
            loads = await load_each(self._db, tenant, [one.wanted for one in together])
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            for one in together:
                if not one.answer.done():
                    one.answer.set_exception(error)
        else:
            for one, load in zip(together, loads, strict=True):
                if not one.answer.done():
                    one.answer.set_result(load)
        finally:
            for one in together:
                one.answer.cancel()  # where this was cancelled itself
            self._next(tenant, line)
