"""Tells those of a process who wait for a seat, or hold one, that something has changed with it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from shared.freshness.tail import Tail
from shared.tenancy import Tenant


class SeatNews:
    """Events by what they are about: the seats of a license, or a machine. A change is told of at least once."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def following(self, tail: Tail) -> Generator[None]:
        """Hears of changes while the block runs."""
        stop = tail.listen(self.changed)
        try:
            yield
        finally:
            stop()

    @contextmanager
    def of(self, tenant: Tenant, kind: str, key: str) -> Generator[asyncio.Event]:
        """An event that is set when the seats of a license (`seats`), or a `machine`, have changed."""
        name, event = f"{kind}:{tenant.account_id}/{tenant.mode.value}/{key}", asyncio.Event()
        self._events.setdefault(name, set()).add(event)
        try:
            yield event
        finally:
            mine = self._events[name]
            mine.discard(event)
            if not mine:
                del self._events[name]

    def changed(self, keys: Sequence[str] | None) -> None:
        """For the tail: what has changed; None where it does not know."""
        if not self._events:
            return
        for name in self._events if keys is None else keys:
            for event in self._events.get(name, ()):
                event.set()
