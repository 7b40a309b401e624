"""One timer for all calls: it looks after those that take long.

A timer for each call would cost more than the answer of a quick one.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

TICK_S: Final = 0.02


class Watched(Protocol):
    """What is looked after."""

    def look(self) -> None:
        """Looks; once, unless it is added again."""
        ...


class Watch:
    """Looks at each of its things when it is due, give or take a tick."""

    __slots__ = ("_due", "_loop", "_ticking")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: dict[Watched, float] = {}
        self._ticking = False

    def add(self, watched: Watched, in_s: float) -> None:
        """Looks at it in so many seconds; forgets when else it was due."""
        self._due[watched] = self._loop.time() + in_s
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def discard(self, watched: Watched) -> None:
        """Looks at it no more."""
        self._due.pop(watched, None)

    def _tick(self) -> None:
        now = self._loop.time()
        for watched in [watched for watched, due in self._due.items() if due <= now]:
            del self._due[watched]
            watched.look()
        self._ticking = bool(self._due)
        if self._ticking:
            self._loop.call_later(TICK_S, self._tick)
