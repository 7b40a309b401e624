"""Answers that would be given again: kept with the facts that they were made of, and good while those are.

This keeps no verdict alive. An answer is used only while memory may answer, while each of its facts is the very one in
memory, and within a span in which time alone changes nothing of it: then making it anew would end in the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from shared.freshness.memory import CHANCES, Fact, Memory
from shared.freshness.tail import Tail

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class Recalled:
    """What a kept answer rests on; what was answered is in its own class.

    Attributes:
        made_of: The facts behind it, each as it was in memory.
        since: The record's time at which it was made.
        until: The first moment after that at which time alone changes it; None for never.
        held_at: The memory's count of losses when all of its facts were last seen there.
        in_use: Whether it was given since it was last about to be let go.
    """

    made_of: Sequence[Fact]
    since: datetime
    until: datetime | None
    held_at: int = field(default=-1, init=False)
    in_use: bool = field(default=False, init=False)


R = TypeVar("R", bound=Recalled)


class Recall(Generic[K, R]):
    """At most `most` answers, by all that they depend on beside facts and time. The oldest goes first, but for those that
    were given meanwhile: they are marked and not moved, since what is next to them in the order is seldom in a cache.
    """

    def __init__(self, tail: Tail, memory: Memory, most: int) -> None:
        self._tail = tail
        self._memory = memory
        self._most = most
        self._kept: OrderedDict[K, R] = OrderedDict()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def get(self, key: K) -> tuple[R, datetime] | None:
        """The answer that would be made now, and the record's time that is now; None where it has to be made."""
        kept = self._kept.get(key)
        if kept is None or (now := self._tail.moment()) is None:
            return None
        memory = self._memory
        if kept.held_at != memory.losses:
            if not memory.holds(kept.made_of):
                del self._kept[key]
                return None
            kept.held_at = memory.losses
        if now < kept.since or (kept.until is not None and now >= kept.until):
            return None
        kept.in_use = True
        return kept, now

    def put(self, key: K, recalled: R) -> None:
        """Keeps an answer that was made from facts in memory."""
        self._kept[key] = recalled
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._let_one_go()

    def _let_one_go(self) -> None:
        for _ in range(CHANCES):
            key, oldest = next(iter(self._kept.items()))
            if not oldest.in_use:
                break
            oldest.in_use = False
            self._kept.move_to_end(key)
        self._kept.popitem(last=False)
