"""A word to the person at the terminal while a step takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import Final

Say = Callable[[str], None]

QUIET_S: Final = 2.0
EVERY_S: Final = 5.0


def silent(line: str) -> None:
    """Says nothing."""


@contextmanager
def step(say: Say, name: str) -> Generator[None]:
    """Says `name` with the elapsed seconds once the body has taken 2 s, and every 5 s from then on."""
    done = threading.Event()
    begun = monotonic()

    def watch() -> None:
        pause = QUIET_S
        while not done.wait(pause):
            say(f"  {name} ({monotonic() - begun:.0f} s)")
            pause = EVERY_S

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
