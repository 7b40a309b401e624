"""How far a long run has come: a bar on a terminal, and now and then a plain line elsewhere."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Final, TextIO

BAR_CHARS: Final = 30
DRAW_EVERY_S: Final = 0.1
SAY_EVERY_S: Final = 5.0


class Progress:
    """Shows `done` of `total` (0: not known) on standard error. `what` is counted in the plural."""

    def __init__(self, what: str, total: int, *, done: int = 0, out: TextIO | None = None) -> None:
        self._what, self._total, self._done, self._first = what, total, done, done
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._began = self._shown = monotonic()

    @property
    def per_s(self) -> float:
        return (self._done - self._first) / max(monotonic() - self._began, 1e-9)

    def was_done(self, count: int) -> None:
        """Counts what an earlier run did, which says nothing about how fast this one is."""
        self._first += count
        self.add(count)

    def add(self, count: int) -> None:
        self._done += count
        if monotonic() - self._shown >= (DRAW_EVERY_S if self._terminal else SAY_EVERY_S):
            self._shown = monotonic()
            self._show()

    def end(self) -> None:
        """Leaves the last state on its line."""
        if self._terminal:
            self._show()
            self._out.write("\n")
            self._out.flush()

    def _show(self) -> None:
        of_all = f" of {self._total:,}" if self._total else ""
        text = f"{self._done:,}{of_all} {self._what}, {self.per_s:,.0f}/s"
        if not self._terminal:
            self._out.write(text + "\n")
        else:
            full = round(BAR_CHARS * min(1.0, self._done / self._total)) if self._total else 0
            bar = f"[{'#' * full}{'.' * (BAR_CHARS - full)}] " if self._total else ""
            self._out.write(f"\r{bar}{text}\x1b[K")
        self._out.flush()
