"""A process that serves, as the one that started it sees it."""

from __future__ import annotations

import asyncio
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from shared.observe.logging import get_logger
from shared.rpc.control import CONTROL_FD, Control, Up, Word

QUIT_WITHIN_S: Final = 10.0
LAST_WORDS_S: Final = 1.0
_log = get_logger(__name__)


class ChildError(Exception):
    """A process that serves could not be started, or did not go on."""


class FailedError(ChildError):
    """It said itself why it could not go on."""


class Child:
    """One process. `run` it; `stop` and `kill` may come at any time meanwhile.

    Args:
        process: The process.
        control: The way to talk to its inside.
        leave_within_s: How long leaving may take; it is killed when it is still there.

    Attributes:
        up: What it said of itself, once it listens.
        ready: Whether it said that calls can be served.
        leaving: Whether it was told to leave.
        changed: Called when one of these changes.
    """

    name = "the process"
    error: type[ChildError] = ChildError

    def __init__(self, process: Process, control: Control, leave_within_s: float) -> None:
        self._process = process
        self._control = control
        self._leave_within_s = leave_within_s
        self.up: Up | None = None
        self.ready = False
        self.leaving = False
        self.changed: Callable[[], None] = lambda: None
        self._left = False
        self._said_why = False
        self._why = ""
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self) -> None:
        """Returns when it has left in order.

        Raises:
            ChildError: It ended otherwise.
        """
        listening = asyncio.create_task(self._listen())
        try:
            status = await self._process.wait()
            await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        finally:
            listening.cancel()
            await asyncio.wait({listening})
            if self._deadline is not None:
                self._deadline.cancel()
        if self._said_why:
            raise FailedError(self._why)
        if not self._left:
            raise self.error(self._why or f"{self.name} ended by itself with status {status}")

    def stop(self) -> None:
        """Tells it to leave in order; said again: to hurry."""
        self.leaving = True
        self.changed()
        if not self._hears():  # nothing is in flight, and nobody inside may be there yet to hear a word
            self._left = True
            with suppress(ProcessLookupError):
                self._process.terminate()
            self._kill_after(QUIT_WITHIN_S)
            return
        self._control.say(Word.STOP)
        if self._deadline is None:
            self._kill_after(self._leave_within_s)

    def kill(self, why: str) -> None:
        """Ends it at once."""
        _log.error(f"{self.name} is killed", pid=self.pid, why=why)
        self._why = self._why or f"{self.name} {why} and was killed"
        self._left = False
        with suppress(ProcessLookupError):
            self._process.kill()

    def _kill_after(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(
            seconds, self.kill, f"did not end within {seconds:.0f} s"
        )

    def _hears(self) -> bool:
        """Whether somebody inside hears what is said."""
        return self.up is not None

    async def _listen(self) -> None:
        while (heard := await self._control.hear()) is not None:
            word, more = heard
            if word is Word.UP:
                self.up = Up.heard(more)
            elif word in (Word.READY, Word.UNREADY):
                self.ready = word is Word.READY
            elif word in (Word.LEFT, Word.FAILED):
                self.ready, self._left, self._why = False, word is Word.LEFT, more
                self._said_why = word is Word.FAILED
                self._kill_after(QUIT_WITHIN_S)
            await self._heard(word)
            self.changed()

    async def _heard(self, word: Word) -> None:
        """What else a word leads to."""


@asynccontextmanager
async def started(
    command: Sequence[str], environment: Mapping[str, str], name: str
) -> AsyncGenerator[tuple[Process, Control]]:
    """A process and the way to talk to its inside; the process is gone when the block ends."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**environment, CONTROL_FD: str(theirs.fileno())},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # Ctrl-C at the terminal is for this process, which stops the other in order
        )
    _log.info(f"{name} started", pid=process.pid)
    control = await Control.over(ours)
    try:
        yield process, control
    finally:
        control.close()
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), QUIT_WITHIN_S)
            except TimeoutError:
                process.kill()
                await process.wait()
