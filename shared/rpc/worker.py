"""A process that serves because another one started it: it hears and tells over `Control`."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Sequence

from shared.observe.logging import get_logger
from shared.rpc.control import CONTROL_FD, Control, Up, Word
from shared.rpc.runtime import Bound

_log = get_logger(__name__)


class Telling:
    """The part of a `Host` that tells the process that started this one.

    Args:
        control: The way to that process.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    def up(self, bound: Bound, services: Sequence[str]) -> None:
        self._control.say(Word.UP, Up(bound.ops_addr, services).said())

    def ready(self, ready: bool) -> None:
        self._control.say(Word.READY if ready else Word.UNREADY)


async def open_control() -> Control:
    """This process's end."""
    return await Control.over(socket.socket(fileno=int(os.environ.pop(CONTROL_FD))))


async def report(serving: Awaitable[None], control: Control, expected: tuple[type[Exception], ...]) -> None:
    """Serves, and says how that ended. Of the `expected` errors the message is enough."""
    try:
        await serving
    except expected as error:
        control.say(Word.FAILED, str(error))
    except Exception as error:  # noqa: BLE001 - the end of the line: whatever it is goes to the log and ends the process
        _log.error("serving failed", exc_info=error)
        control.say(Word.FAILED, f"{type(error).__name__}, see the log")
    else:
        control.say(Word.LEFT)
