"""What happens to an account, and who asks what meanwhile: the same questions again and again, and others beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from hypothesis import strategies as st
from lictor.account.v1.account_service_pb2 import CreateAccountResponse

from tests.consistency.asking import CHOIR, Ask, asks, called, message_of
from tests.consistency.bazaar import Bazaar, Caller, Hands, open_bazaar
from tests.consistency.bazaar_changes import CHANGES

RECHECK: Final = timedelta(minutes=5)
TICK: Final = timedelta(microseconds=1)
MOST: Final = 30
"""Of the last so many questions each is asked again after every change."""
Question = tuple[Caller, str, bytes]
"""Who asks, by which method, and the request."""


@dataclass(frozen=True)
class Round:
    """What happens, and what is asked then. `crossing` is the number of a moment that is looked at from both of its sides."""

    changes: Sequence[tuple[str, int]]
    little_s: float
    crossing: int | None
    asks: Sequence[Ask]


class Stage(Protocol):
    """Where a story is played."""

    operator: str
    other: CreateAccountResponse

    @property
    def do(self) -> Hands: ...

    @property
    def move(self) -> Callable[[timedelta], Awaitable[None]] | None:
        """Lets time pass; None where it passes by itself."""
        ...

    def now(self) -> datetime: ...

    async def look(self, asked: Sequence[Question]) -> None:
        """Asks all of it and compares."""
        ...


stories = st.lists(
    st.builds(
        Round,
        changes=st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 3)), max_size=3),
        little_s=st.sampled_from((0.0, 0.0, 0.3, 0.999)),
        crossing=st.none() | st.integers(0, 9) | st.integers(0, 9),
        asks=st.lists(asks, min_size=1, max_size=5),
    ),
    min_size=2,
    max_size=3,
)


async def live_through(stage: Stage, story: Sequence[Round]) -> None:
    it = await open_bazaar(stage.do, stage.operator, stage.now, stage.other)
    asked: list[Question] = [(called(it, ask), *message_of(it, ask)) for ask in CHOIR]
    await stage.look(asked)
    for part in story:
        for kind, n in part.changes:
            await CHANGES[kind](it, n)
        # Whoever is known by a name by now asks, and whoever was known by it before.
        asked += [(called(it, ask), *message_of(it, ask)) for ask in (*CHOIR, *part.asks)]
        asked = list(dict.fromkeys(asked))[-MOST:]
        if stage.move is None:
            await stage.look(asked)
            continue
        if part.little_s:
            await stage.move(timedelta(seconds=part.little_s))
        moment = None if part.crossing is None else _ahead(it, part.crossing)
        if moment is None:
            await stage.look(asked)
            continue
        await stage.move(moment - TICK - it.now())
        await stage.look(asked)
        for _ in range(2):
            await stage.move(TICK)
            await stage.look(asked)


def _ahead(it: Bazaar, n: int) -> datetime | None:
    """The `n`-th of the moments to come at which an answer changes, or begins to count down to a change."""
    soonest = it.now() + TICK
    moments = sorted({at - before for at in it.moments for before in (RECHECK, timedelta(0)) if at - before > soonest})
    return moments[min(n, len(moments) - 1)] if moments else None
