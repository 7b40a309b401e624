"""What a history may be by trying every order of it: slow, plain, and what the checker is held against."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations, product
from typing import Final

from hypothesis import strategies as st

from tests.consistency.history import History, Read, Value, Write

LINES: Final = ("a", "b")
MOMENTS = st.integers(0, 12)


@st.composite
def small_histories(draw: st.DrawFn, *, one_after_the_other: bool, telling: bool = False) -> History:
    """A few writes of two lines with values of their own, and two or three answers out of nowhere; `telling` when they held."""
    writes: list[Write] = []
    free: dict[str, float] = dict.fromkeys(LINES, 0.0)
    values: dict[str, list[Value]] = {line: [{"v": 0}] for line in LINES}
    for n in range(1, draw(st.integers(1, 3)) + 1):
        changed = draw(st.sampled_from([("a",), ("b",), LINES]))
        least = max(free[line] for line in changed) if one_after_the_other else 0.0
        if math.isinf(least):
            continue
        begin = least + draw(st.integers(1, 5))
        end = draw(st.one_of(st.none(), st.integers(0, 6).map(begin.__add__)))
        free |= dict.fromkeys(changed, math.inf if end is None else end)
        values |= {line: [*values[line], {"v": n}] for line in changed}
        writes.append(Write(f"w{n}", begin, end, {line: {"v": n} for line in changed}, draw(st.booleans())))
    reads: list[Read] = []
    for n in range(draw(st.integers(1, 3))):
        begin = float(draw(MOMENTS))
        ended = [made for made in writes if made.end is not None and made.end <= begin]
        after = tuple(made for made in ended if draw(st.booleans()) and draw(st.booleans()))
        shown = draw(st.sampled_from([("a",), ("b",), LINES]))
        seen = {line: draw(st.sampled_from(values[line])) for line in shown}
        end, lag = begin + draw(st.integers(0, 4)), draw(st.sampled_from([0, 2, 20]))
        memory, evaluated = "", None
        if telling:
            memory = draw(st.sampled_from(["", "one", "other"]))
            evaluated = end - draw(st.sampled_from([-1, 0, 0, 1, 2, 4, 8])) if memory or draw(st.booleans()) else None
        reads.append(Read(f"r{n}", begin, end, seen, lag, after, evaluated, memory))
    return History({line: {"v": 0} for line in LINES}, writes, reads)


def explained(history: History) -> bool:
    """Whether some order of all writes that happened and all answers does."""
    if any(read.evaluated is not None and read.evaluated > read.end for read in history.reads) or _goes_back(history):
        return False
    states: dict[object, list[Read]] = defaultdict(list)
    for n, read in enumerate(history.reads):
        states[(read.memory, read.evaluated) if read.memory else n].append(read)
    lost = [made for made in history.writes if made.end is None]
    for happened in product([False, True], repeat=len(lost)):
        gone = {made for made, was in zip(lost, happened, strict=True) if not was}
        steps: list[Write | list[Read]] = [*(made for made in history.writes if made not in gone), *states.values()]
        if any(_follows(order, history.initial) for order in permutations(steps)):
            return True
    return False


def _goes_back(history: History) -> bool:
    told = [(read, read.evaluated) for read in history.reads if read.memory and read.evaluated is not None]
    return any(
        first.memory == then.memory and first.end < then.begin and at > later
        for first, at in told for then, later in told
    )  # fmt: skip


def _follows(order: Sequence[Write | list[Read]], initial: Mapping[str, Value]) -> bool:
    """Whether all of it can have come in this order. Answers of one state are one step."""
    state, now, done, told = dict(initial), -math.inf, set[Write](), dict[str, float]()
    known = [step for step in order if isinstance(step, Write)]
    for step in order:
        if isinstance(step, Write):
            now = max(now, step.begin)
            if step.end is not None and now > step.end:
                return False
            state |= step.changes
            done.add(step)
            continue
        now = max(now, *(read.begin - read.lag_s for read in step))
        for read in step:
            at = read.end if read.evaluated is None else read.evaluated
            if now > min(read.end, at) or at < told.get(read.memory, at):
                return False
            if read.memory:
                told[read.memory] = at
            ended = {made for made in known if made.restricting and made.end is not None and made.end < read.begin}
            if not (ended | set(read.after)) <= done or any(state[name] != value for name, value in read.seen.items()):
                return False
    return True
