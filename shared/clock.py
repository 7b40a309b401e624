"""The only place that reads time, but for the order that ids are in.

Domain code takes a `Clock`; decisions take the record's time as an argument.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Protocol

_BOOTTIME: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It counts through suspend; where it is absent (macOS) the monotonic clock does."""


class Clock(Protocol):
    """What the suite needs to know of time."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC. For logs and metrics: rights are decided by the record's time."""
        ...

    def boottime(self) -> float:
        """Seconds that never jump and go on while the machine is suspended."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def boottime(self) -> float:
        return time.clock_gettime(_BOOTTIME)
