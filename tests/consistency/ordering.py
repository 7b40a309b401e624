"""Whether all writes and answers of a history can have come one after the other: a graph of who was first, without a circle.

Times order what does not overlap, and each answer comes after the writes that it shows and before those that follow them.
Answers that are each fine alone may still contradict each other: one shows a first write and not a second, one the second
and not the first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tests.consistency.history import Line, Read, Version, Write

TRIED: Final = 20
"""Of how many answers the shortest circle is told."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer, and the versions that it is known to show."""

    read: Read
    versions: tuple[Version, ...]


def knots(
    lines: Mapping[str, Line], writes: Sequence[Write], shown: Sequence[Shown], until: Callable[[Read], float]
) -> list[tuple[Read, str]]:
    """Answers that come before themselves, each with the circle. Those that are part of a circle already told are left out.
    `until` is the last moment whose state an answer may show."""
    graph = _Graph()
    commits = {write: graph.node() for write in writes}
    moments = sorted({at for write in writes for at in (write.begin, write.end) if at is not None} | {
        until(one.read) for one in shown
    })  # fmt: skip
    times = [graph.node() for _ in moments]
    graph.chain(times)
    for write, node in commits.items():
        graph.after(node, times, bisect_left(moments, write.begin))
        if write.end is not None:
            graph.edge(node, times[bisect_left(moments, write.end)])
    restricting = sorted((w for w in writes if w.restricting and w.end is not None), key=_ended)
    ends, held = [_ended(write) for write in restricting], [graph.node() for _ in restricting]
    graph.chain(held)
    for write, node in zip(restricting, held, strict=True):
        graph.edge(commits[write], node)
    following = {id(version): nexts for line in lines.values() for version, nexts in _followers(line)}
    reads: dict[int, Read] = {}
    for one in shown:
        read, node = one.read, graph.node()
        reads[node] = read
        graph.after(node, times, bisect_left(moments, read.begin - read.lag_s))
        graph.edge(node, times[bisect_left(moments, until(read))])
        graph.after(node, held, bisect_left(ends, read.begin))
        for write in read.after:
            graph.edge(commits[write], node)
        for version in one.versions:
            if version.made is not None:
                graph.edge(commits[version.made], node)
            for write in following[id(version)]:
                graph.edge(node, commits[write])
    for memory in {read.memory for read in reads.values() if read.memory}:
        states = [node for node, read in reads.items() if read.memory == memory]
        graph.chain(sorted(states, key=lambda node: reads[node].until))
    names = {node: f"write {write.name} begun {write.begin:.6f}" for write, node in commits.items()}
    names |= {node: f"read {read.name} begun {read.begin:.6f}" for node, read in reads.items()}
    return [
        (reads[circle[0]], "before itself: " + ", ".join(names[node] for node in circle if node in names))
        for circle in graph.circles(list(reads))
    ]


def _ended(write: Write) -> float:
    assert write.end is not None
    return write.end


def _followers(line: Line) -> Generator[tuple[Version, list[Write]]]:
    """Each version with the writes that may be the first to follow it; others follow one of these."""
    begun = line.versions
    starts = [version.begin for version in begun]
    for version in begun:
        nexts: list[Write] = []
        first_by = float("inf")
        for n in range(bisect_left(starts, version.by), len(begun)):
            made = begun[n].made
            if starts[n] > first_by:
                break
            if made is not None and starts[n] > version.by:
                nexts.append(made)
                first_by = min(first_by, begun[n].by)
        yield version, nexts


class _Graph:
    def __init__(self) -> None:
        self._next: list[list[int]] = []
        self._before: list[list[int]] = []

    def node(self) -> int:
        self._next.append([])
        self._before.append([])
        return len(self._next) - 1

    def edge(self, first: int, then: int) -> None:
        self._next[first].append(then)
        self._before[then].append(first)

    def chain(self, nodes: Sequence[int]) -> None:
        for first, then in pairwise(nodes):
            self.edge(first, then)

    def after(self, node: int, marks: Sequence[int], count: int) -> None:
        """The node comes after the first `count` of the marks, which are a chain."""
        if count:
            self.edge(marks[count - 1], node)

    def circles(self, starts: Sequence[int], most: int = 50) -> list[list[int]]:
        """Short circles, each beginning with one of `starts` and apart from the others; none only where there is none."""
        left = set(range(len(self._next)))
        found: list[list[int]] = []
        while len(found) < most:
            left = self._knotted(left)
            tried = [node for node in starts if node in left][:TRIED]
            circles = [circle for node in tried if (circle := self._circle(node, left))]
            left -= set(tried)
            if circles:
                shortest = min(circles, key=len)
                found.append(shortest)
                left -= set(shortest).intersection(starts)
            elif not tried:
                break
        return found

    def _knotted(self, left: set[int]) -> set[int]:
        """Those of the nodes that stand in a circle, or between two."""
        for forth, back in ((self._next, self._before), (self._before, self._next)):
            waits = {node: sum(other in left for other in back[node]) for node in left}
            free = [node for node in left if not waits[node]]
            while free:
                node = free.pop()
                left.discard(node)
                for other in forth[node]:
                    if other in left:
                        waits[other] -= 1
                        if not waits[other]:
                            free.append(other)
        return left

    def _circle(self, start: int, left: set[int]) -> list[int]:
        """The shortest way from a node to itself; empty where there is none."""
        came: dict[int, int] = {}
        edge = deque([start])
        while edge:
            node = edge.popleft()
            for other in self._next[node]:
                if other == start:
                    circle = [node]
                    while circle[-1] != start:
                        circle.append(came[circle[-1]])
                    return circle[::-1]
                if other in left and other not in came:
                    came[other] = node
                    edge.append(other)
        return []
