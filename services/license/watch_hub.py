"""Tells a process's streams of licenses what has changed, and bounds how many there are."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from prometheus_client import Gauge
from prometheus_client.registry import Collector

from services.license.watch_marks import TOLD, Dues, Marks
from shared.db.pool import Database
from shared.errors import DomainError, Reason
from shared.freshness.resume import ResumeTokens
from shared.freshness.tail import Tail
from shared.tenancy import Tenant

MAX_STREAMS: Final = 128
"""Streams of a process. Each keeps one of its places."""
MAX_ACCOUNT_STREAMS: Final = 32
MAX_FOLLOWED: Final = 1_000_000
"""Licenses that the streams of a process follow, each counted in every stream: about 250 bytes."""
MAX_ACCOUNT_FOLLOWED: Final = 500_000
LOADS: Final = 2
"""Reads for streams at once: the other connections are for calls."""
SLICE: Final = 1000
"""Changes that are told at once: less than a millisecond."""
RETRY_AFTER_MS: Final = 5000
_DOUBTS: Final = frozenset({"api_key", "account", "workload"})
"""Kinds of facts that a caller's right to listen is made from."""


def overloaded(message: str) -> DomainError:
    """OVERLOADED with a time to wait."""
    return DomainError(Reason.OVERLOADED, message, retry_after_ms=RETRY_AFTER_MS)


class Watches:
    """The streams of a process.

    Args:
        tail: What tells it of changes.
        facts: Connections of lictor_facts.
        tokens: Makes and reads resume tokens.
    """

    def __init__(self, tail: Tail, facts: Database, tokens: ResumeTokens) -> None:
        self.tail = tail
        self.facts = facts
        self.tokens = tokens
        self.loads = asyncio.Semaphore(LOADS)
        self._streams: dict[tuple[str, str], dict[Marks, Dues]] = {}
        self._untold: deque[Sequence[str]] = deque()
        self._telling: asyncio.Task[None] | None = None
        streams = Gauge("lictor_watch_streams", "Streams of licenses", registry=None)
        streams.set_function(lambda: sum(len(one) for one in self._streams.values()))
        followed = Gauge("lictor_watch_licenses", "Licenses that streams follow, in all streams", registry=None)
        followed.set_function(lambda: self._followed(None))
        self.collectors: Sequence[Collector] = (streams, followed)

    @property
    def settled(self) -> bool:
        """Whether all streams were told of all that the tail's state includes."""
        return not self._untold

    @contextmanager
    def opened(self, tenant: Tenant, marks: Marks, dues: Dues) -> Generator[None]:
        """Tells a stream what changes, while the block runs. OVERLOADED where there are too many."""
        mine = sum(len(one) for (account_id, _), one in self._streams.items() if account_id == tenant.account_id)
        if mine >= MAX_ACCOUNT_STREAMS:
            raise overloaded(f"this account has {mine} streams at this process already")
        if sum(len(one) for one in self._streams.values()) >= MAX_STREAMS:
            raise overloaded(f"{MAX_STREAMS} streams are open at this process already")
        key = (tenant.account_id, tenant.mode.value)
        self._streams.setdefault(key, {})[marks] = dues
        try:
            yield
        finally:
            streams = self._streams[key]
            del streams[marks]
            if not streams:
                del self._streams[key]

    def refuse_many(self, tenant: Tenant) -> None:
        """OVERLOADED where streams follow more licenses than they may."""
        followed, mine = self._followed(None), self._followed(tenant.account_id)
        if mine > MAX_ACCOUNT_FOLLOWED or followed > MAX_FOLLOWED:
            raise overloaded(
                f"the streams of this account follow {mine} licenses at this process, of {followed} in all; narrow them"
            )

    def changed(self, keys: Sequence[str] | None) -> None:
        """For the tail: what has changed; None where it does not know."""
        if keys is None:
            self._untold.clear()
            for marks in self._all():
                marks.lose()
        elif not self._streams:
            return
        elif self.settled and len(keys) <= SLICE:
            self._tell(keys)
        else:
            for marks in self._all():
                marks.doubt()
            self._untold.append(keys)
            if self._telling is None or self._telling.done():
                self._telling = asyncio.create_task(self._tell_all(), name="telling streams")

    async def _tell_all(self) -> None:
        """In slices, so that calls go on meanwhile."""
        while self._untold:
            keys = self._untold[0]
            for start in range(0, len(keys), SLICE):
                self._tell(keys[start : start + SLICE])
                await asyncio.sleep(0)
                if not self._untold or self._untold[0] is not keys:
                    break  # what was not told was lost meanwhile
            else:
                self._untold.popleft()
        for marks in self._all():
            marks.news.set()  # those that wait to be settled

    def _tell(self, keys: Sequence[str]) -> None:
        doubted = False
        for full in keys:
            kind, _, key = full.partition(":")
            if kind in TOLD:
                account_id, _, rest = key.partition("/")
                mode, _, key = rest.partition("/")
                for marks in self._streams.get((account_id, mode), ()):
                    marks.touch(kind, key)
            elif kind in _DOUBTS:
                doubted = True
        if doubted:
            for marks in self._all():
                marks.doubt()

    def _all(self) -> Iterator[Marks]:
        for streams in self._streams.values():
            yield from streams

    def _followed(self, account_id: str | None) -> int:
        return sum(
            len(dues)
            for (whose, _), streams in self._streams.items()
            if account_id in {None, whose}
            for dues in streams.values()
        )
