"""Collections of garbage that stay short, however much a process holds: a pause is a moment in which nobody is answered, and
one that is longer than the lease costs memory the right to answer."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Final

LONG_S: Final = 0.005
_FULL: Final = 2


def keep_collections_short() -> Callable[[], None]:
    """Lets no collection look again at what a long one has left: facts and answers live until they are let go, which their
    counts of references see to. What is no garbage yet at that moment and ends in a circle later is never collected: a few
    objects of the calls under way, once for each 80,000 objects that a process comes to hold. What is returned ends it.
    """
    gc.freeze()  # what exists by now lives as long as the process
    began = 0.0

    def collected(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if info["generation"] < _FULL:
            return
        if phase == "start":
            began = perf_counter()
        elif perf_counter() - began > LONG_S:
            gc.freeze()

    gc.callbacks.append(collected)
    return lambda: gc.callbacks.remove(collected)
