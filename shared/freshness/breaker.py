"""A circuit breaker: who has failed several times in a row is left alone for a while, then probed once."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from shared.clock import Clock

FAILURES: Final = 3
PAUSE_S: Final = 2.0


class State(Enum):
    """What may be tried."""

    CLOSED = auto()
    """Everything."""
    OPEN = auto()
    """Nothing, until the pause is over."""
    PROBING = auto()
    """Nothing but the one probe that runs."""


class Breaker:
    """`failures` in a row open it for `pause_s`. A failed probe opens it anew.

    After a probe that went well the next failure is enough to open it, since the probe asks less than those it stands for.
    """

    def __init__(self, clock: Clock, *, failures: int = FAILURES, pause_s: float = PAUSE_S) -> None:
        self._clock = clock
        self._limit = failures
        self._pause_s = pause_s
        self._failed = 0
        self._open_until = 0.0
        self._state = State.CLOSED

    @property
    def state(self) -> State:
        return self._state

    def take_probe(self) -> bool:
        """True, once, when the pause is over: the caller must probe, and say how that ended."""
        if self._state is not State.OPEN or self._clock.boottime() < self._open_until:
            return False
        self._state = State.PROBING
        return True

    def succeeded(self) -> None:
        """Something was tried and went well."""
        self._failed = 0 if self._state is State.CLOSED else self._limit - 1
        self._state = State.CLOSED

    def failed(self) -> bool:
        """Something was tried and failed; whether that opened it."""
        if self._state is State.OPEN:
            return False
        self._failed += 1
        if self._state is State.CLOSED and self._failed < self._limit:
            return False
        self._state = State.OPEN
        self._open_until = self._clock.boottime() + self._pause_s
        return True
