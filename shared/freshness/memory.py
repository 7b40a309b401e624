"""Facts in the process's memory (L1): those used longest ago go first, as nearly as is cheap."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

ENTRY_BYTES: Final = 160
"""What the table itself takes for an entry: its slot, the key's header, and the links of the order."""
MAX_ABSENT: Final = 10_000
"""Facts that are known to be absent, apart from the others: whoever asks for keys at random drives out nobody's facts."""
CHANCES: Final = 8
"""How many facts at most an eviction spares because an answer that was made of them was given again."""


@dataclass(slots=True)
class Fact:
    """What the record says of one entity. Everything in it is part of the answer to no more than one question.

    That never changes. Whether it is held is noted on it, by the memory alone: to look it up in a table costs far more.

    Attributes:
        key: The kind and the key that its trigger logs, such as `license:acc_1/TEST/lic_1`.
        value: What is known; None says that there is no such thing.
        size_bytes: About what the value takes in memory.
        held_by: Which filling of the memory holds it; None for none. A filling ends when the memory is cleared.
        in_use: Whether `Memory.holds` found it since an eviction last came by.
    """

    key: str
    value: object | None
    size_bytes: int
    held_by: object | None = field(default=None, init=False, repr=False, compare=False)
    in_use: bool = field(default=False, init=False, repr=False, compare=False)


class Memory:
    """At most `max_bytes` of facts, and `MAX_ABSENT` that are absent. A fact belongs to one memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._facts: OrderedDict[str, Fact] = OrderedDict()
        self._absent: OrderedDict[str, Fact] = OrderedDict()
        self._filling = object()
        """Another one after each clearing: to tell each fact of that would hold up the loop."""
        self._bytes = 0
        self.losses = 0
        """How often something that was held was let go or replaced: while this stays, all that was held still is."""

    def __len__(self) -> int:
        """How many facts are held, the absent ones among them."""
        return len(self._facts) + len(self._absent)

    @property
    def size_bytes(self) -> int:
        """About what the facts take."""
        return self._bytes

    def get(self, key: str) -> Fact | None:
        """The fact; None where nothing is known."""
        fact = self._facts.get(key)
        if fact is not None:
            self._facts.move_to_end(key)
            return fact
        return self._absent.get(key)

    def holds(self, facts: Iterable[Fact]) -> bool:
        """Whether each of them is the very one that is held."""
        filling = self._filling
        for fact in facts:
            if fact.held_by is not filling:
                return False
            fact.in_use = True
        return True

    def put(self, fact: Fact) -> None:
        """Holds a fact in place of what was known. One that says the same stays as it is, and with it what was made of it."""
        known = self._facts.get(fact.key)
        if known is not None and (known is fact or known.value == fact.value):
            self._facts.move_to_end(fact.key)
            return
        self.drop(fact.key)
        fact.held_by = self._filling
        if fact.value is None:
            self._absent[fact.key] = fact
            if len(self._absent) > MAX_ABSENT:
                self._let_go(self._absent.popitem(last=False)[1])
            return
        self._facts[fact.key] = fact
        self._bytes += _bytes_of(fact)
        while self._bytes > self._max_bytes and self._facts:
            self._evict()

    def drop(self, key: str) -> None:
        """Forgets a fact, if it is held."""
        fact = self._facts.pop(key, None)
        if fact is not None:
            self._bytes -= _bytes_of(fact)
            self._let_go(fact)
        elif (absent := self._absent.pop(key, None)) is not None:
            self._let_go(absent)

    def clear(self) -> tuple[dict[str, Fact], dict[str, Fact]]:
        """Forgets everything; returns what was held, which the caller lets go."""
        held = (self._facts, self._absent)
        self._facts, self._absent = OrderedDict(), OrderedDict()
        self._filling = object()
        self._bytes = 0
        self.losses += 1
        return held

    def _evict(self) -> None:
        """Lets the oldest go, but for a few that answers were given from: what is made of a fact does not read it again."""
        for _ in range(CHANCES):
            oldest = next(iter(self._facts.values()))
            if not oldest.in_use:
                break
            oldest.in_use = False
            self._facts.move_to_end(oldest.key)
        _, oldest = self._facts.popitem(last=False)
        self._bytes -= _bytes_of(oldest)
        self._let_go(oldest)

    def _let_go(self, fact: Fact) -> None:
        fact.held_by = None
        self.losses += 1


def _bytes_of(fact: Fact) -> int:
    return ENTRY_BYTES + len(fact.key) + fact.size_bytes
