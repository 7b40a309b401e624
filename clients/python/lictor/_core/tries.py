"""When a failed call is tried again, and when it is over. No I/O, so that both flavours share it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from .errors import LictorError

MAX_TRIES: Final = 3
BACKOFF_LOW_S: Final = 0.010
BACKOFF_FIRST_S: Final = 0.050
BACKOFF_HIGH_S: Final = 0.100

_draw: Final = random.SystemRandom().uniform


class Tries:
    """The tries of one call, all under one deadline."""

    def __init__(
        self,
        limit_s: float,
        *,
        retry_safe: bool,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = _draw,
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._deadline = clock() + limit_s
        self._retry_safe = retry_safe
        self._made = 0

    def left_s(self) -> float:
        """How long the next try may take."""
        return max(0.0, self._deadline - self._clock())

    def wait_s(self, error: LictorError) -> float:
        """How long to wait before trying again; raises `error` when it is final."""
        self._made += 1
        asked = error.retry_after_s
        retriable = error.code == "UNAVAILABLE" or (error.code == "RESOURCE_EXHAUSTED" and asked is not None)
        if not (self._retry_safe and retriable) or self._made >= MAX_TRIES:
            raise error
        ceiling = min(BACKOFF_HIGH_S, BACKOFF_FIRST_S * 2 ** (self._made - 1))
        wait = (asked or 0.0) + self._draw(BACKOFF_LOW_S, ceiling)
        if wait >= self.left_s():
            raise error
        return wait
