"""Calls that are repeated while the service cannot answer: safe for reads, and for writes with a `request_id`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

from lictor import LictorError

T = TypeVar("T")

FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 10.0
_LATER: Final = frozenset({"UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN"})
_draw: Final = random.SystemRandom().uniform


def passes(error: LictorError) -> bool:
    """Whether the same call may be answered a little later."""
    if error.code in _LATER:
        return True
    if error.code == "RESOURCE_EXHAUSTED":
        return error.retry_after_s is not None
    return error.code == "INTERNAL" and not error.reason  # a connection that was cut, not a fault of the service


async def patiently(call: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """The answer. LictorError for a call that would fail again, or that failed for `patience_s`."""
    began, wait_s = monotonic(), FIRST_WAIT_S
    while True:
        try:
            return await call()
        except LictorError as error:
            if not passes(error) or monotonic() - began > patience_s:
                raise
            await asyncio.sleep(max(error.retry_after_s or 0.0, wait_s * _draw(0.5, 1.0)))
        wait_s = min(LONGEST_WAIT_S, wait_s * 2)
