"""Going on with a coroutine that was stepped once.

A call that is answered from memory never waits, so nothing that only matters to a call that waits (a timer, above all,
which costs more than such an answer) is set up for it: whoever serves it steps its coroutine once, and goes on with it
under a timer only when it did wait.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def resume(running: Coroutine[Any, Any, T], waiting_for: Any) -> Generator[Any, Any, T]:
    """Goes on with a coroutine whose first `send(None)` gave `waiting_for`; awaited, it is as if it had been awaited
    from the start."""
    while True:
        try:
            sent = yield waiting_for
        except GeneratorExit:
            running.close()
            raise
        except BaseException as error:  # noqa: BLE001 - a cancellation, or what the awaited future ended in, is passed on
            step, value = running.throw, error
        else:
            step, value = running.send, sent
        try:
            waiting_for = step(value)
        except StopIteration as done:
            return done.value
