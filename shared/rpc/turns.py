"""Turns: while a process is busy and several accounts call, each account's calls are worked on few at a time.

All calls run on one thread, so that a call waits at each of its steps for whatever others have ready. A flood of one account,
far below its share of the places, would so make everybody's calls several times as long. With turns the others wait, at each
step, for a call or two of the flood, and the rest of it waits by itself, where it costs nothing.

Who calls alone, or calls a process that has time to spare, takes no turns: where calls wait for the record and not for the
thread, few at a time would be slow for no reason. And a call that takes long, since it waits for a lock, keeps its turn no
longer than `PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count
from time import monotonic, thread_time
from typing import Final

ACTIVE_S: Final = 2.0
"""For how long after a call an account counts as calling."""
SAMPLE_S: Final = 0.05
BUSY_SHARE: Final = 0.5
"""Of its time, what the thread must have worked for the process to be busy."""
PATIENCE_S: Final = 0.02
WIDTH: Final = 1
"""How many calls of an account are worked on at once where turns are taken."""


class _Line:
    """The calls of one account: how many are worked on, and who waits."""

    __slots__ = ("number", "patience", "running", "waiting")

    def __init__(self, number: int) -> None:
        self.number = number
        """Of the turns that are given now; those with an older number have lost theirs."""
        self.running = 0
        self.waiting: deque[asyncio.Future[int]] = deque()
        self.patience: asyncio.TimerHandle | None = None


class Turns:
    """Gives the calls of each account their turns.

    Args:
        clock: Seconds that never go back.
        worked: Seconds for which this thread has worked.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, worked: Callable[[], float] = thread_time) -> None:
        self._clock = clock
        self._worked = worked
        self._lines: dict[str, _Line] = {}
        self._active: OrderedDict[str, float] = OrderedDict()
        """When each account called last; the latest stands last."""
        self._sampled = (clock(), worked())
        self._busy = False
        self._numbers = count()

    def __len__(self) -> int:
        """How many accounts have calls that are worked on or wait."""
        return len(self._lines)

    def free(self, whose: str) -> bool:
        """Whether a call has its turn at once. Counts the account as calling."""
        now = self._clock()
        self._active[whose] = now
        self._active.move_to_end(whose)
        line = self._lines.get(whose)
        return line is None or line.running < WIDTH or not (line.waiting or self._taken_in_turns(now))

    def at_once(self, whose: str) -> int | None:
        """Takes a turn, and returns its number, where it is free; None where it has to be waited for."""
        if not self.free(whose):
            return None
        line = self._lines.get(whose)
        if line is None:
            line = self._lines[whose] = _Line(next(self._numbers))
        line.running += 1
        return line.number

    async def take(self, whose: str) -> int:
        """Waits for a turn, after the account's calls that came before; returns its number."""
        number = self.at_once(whose)
        if number is not None:
            return number
        line = self._lines[whose]
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        if line.patience is None:
            self._be_patient(whose, line)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(whose, turn.result())
            else:
                line.waiting.remove(turn)
                self._forget(whose, line)
            raise

    def leave(self, whose: str, number: int) -> None:
        """Ends a turn; the next begins."""
        line = self._lines.get(whose)
        if line is None or line.number != number:
            return  # it took so long that it has lost its turn
        line.running -= 1
        if line.running or line.waiting:
            self._call_up(whose, line)
        else:
            self._forget(whose, line)

    def _call_up(self, whose: str, line: _Line) -> None:
        if line.patience is not None:
            line.patience.cancel()
            line.patience = None
        wide = not self._others_call(self._clock())
        while line.waiting and (wide or line.running < WIDTH):
            turn = line.waiting.popleft()
            if not turn.done():
                turn.set_result(line.number)
                line.running += 1
        if line.waiting:
            self._be_patient(whose, line)
        self._forget(whose, line)

    def _be_patient(self, whose: str, line: _Line) -> None:
        line.patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._lose_patience, whose, line)

    def _lose_patience(self, whose: str, line: _Line) -> None:
        line.patience = None
        line.number = next(self._numbers)
        line.running = 0
        self._call_up(whose, line)

    def _forget(self, whose: str, line: _Line) -> None:
        if line.running or line.waiting:
            return
        if line.patience is not None:
            line.patience.cancel()
            line.patience = None
        self._lines.pop(whose, None)

    def _others_call(self, now: float) -> bool:
        while self._active and next(iter(self._active.values())) < now - ACTIVE_S:
            self._active.popitem(last=False)
        return len(self._active) > 1

    def _taken_in_turns(self, now: float) -> bool:
        if not self._others_call(now):
            return False
        before, worked = self._sampled
        if now - before >= SAMPLE_S:
            self._sampled = (now, self._worked())
            self._busy = self._sampled[1] - worked >= BUSY_SHARE * (now - before)
        return self._busy
