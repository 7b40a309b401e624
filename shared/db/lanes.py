"""Lanes before the connections of a role: nobody's calls take more than half of them, so that others find one free.

Whose work a piece of code does stands in `LANE`, for as long as the code runs. What waits, waits among its own.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

from shared.errors import DomainError, Reason

LANE: Final[ContextVar[str]] = ContextVar("lane", default="")
"""Whose work is done: an account's id, or another name. Empty for the process's own, which has no lane and no bound."""
RETRY_AFTER_MS: Final = 250


class _Lane:
    __slots__ = ("places", "users")

    def __init__(self, width: int) -> None:
        self.places = asyncio.Semaphore(width)
        self.users = 0


class Lanes:
    """At most `width` at once in each lane; a lane exists while somebody uses it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lanes: dict[str, _Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    async def enter(self, name: str, within_s: float) -> None:
        """Waits for a place in a lane, after those that came before.

        Raises:
            DomainError: OVERLOADED, when there was none in time.
        """
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(self._width)
        lane.users += 1
        try:
            if lane.places.locked():
                async with asyncio.timeout(within_s):
                    await lane.places.acquire()
            else:
                await lane.places.acquire()  # at once, so without a timer
        except TimeoutError:
            self._forget(name, lane)
            raise DomainError(
                Reason.OVERLOADED,
                "the account's other calls use its share of the connections to the record",
                retry_after_ms=RETRY_AFTER_MS,
            ) from None
        except BaseException:
            self._forget(name, lane)
            raise

    def leave(self, name: str) -> None:
        """Gives a place back."""
        lane = self._lanes[name]
        lane.places.release()
        self._forget(name, lane)

    def _forget(self, name: str, lane: _Lane) -> None:
        lane.users -= 1
        if not lane.users:
            del self._lanes[name]
