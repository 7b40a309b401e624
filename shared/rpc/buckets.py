"""Buckets in memory, by whose they are: each is one number, and those that are full again are forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Final

from shared.rules.limits import take

MAX_BUCKETS: Final = 100_000
"""Buckets of one kind; each takes some 200 bytes. Beyond them the one that was used longest ago counts as full."""
_SWEPT_AT_ONCE: Final = 2


class Buckets:
    """Buckets of one kind of limit, by whose they are. Every step takes the same time, however many there are."""

    def __init__(self, clock: Callable[[], float] = monotonic, most: int = MAX_BUCKETS) -> None:
        self._clock = clock
        self._most = most
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()
        """When each is full again; the one that was used last stands last."""

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, whose: Hashable, *, per_s: float, burst: float, wanted: float = 1.0) -> float:
        """Takes from a bucket, or nothing; the seconds to wait, 0 when it was taken. See `shared.rules.limits.take`."""
        now = self._clock()
        taken = take(self._full_at.pop(whose, now), now, per_s=per_s, burst=burst, wanted=wanted)
        self._full_at[whose] = taken.full_at
        self._sweep(now)
        return taken.wait_s

    def wait_s(self, whose: Hashable, *, per_s: float, burst: float) -> float:
        """The seconds that `take` would say to wait for one; nothing is taken."""
        now = self._clock()
        return take(self._full_at.get(whose, now), now, per_s=per_s, burst=burst).wait_s

    def _sweep(self, now: float) -> None:
        # One comes in at a time, so that looking at two keeps up with any flood.
        for _ in range(_SWEPT_AT_ONCE):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._most:
                return
            del self._full_at[oldest]
            if not self._full_at:
                return
