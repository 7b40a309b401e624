"""What one stream of licenses has to look at again: bounded, and each thing once. No I/O."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, Protocol

MAX_LICENSES: Final = 10_000
"""Licenses that may wait for a stream's reader."""
MAX_GROUPS: Final = 1000
"""Policies, products and customers that may wait, whose licenses are found when their turn comes."""
_COLUMNS: Final = {"policy": "policy_id", "product": "product_id", "tier": "product_id", "customer": "customer_id"}
"""Of the licenses that a change of another thing touches."""
_OF_A_LICENSE: Final = frozenset({"license", "seats"})
"""Kinds whose keys are those of licenses: the second says what machines it has, and since when."""
TOLD: Final = _OF_A_LICENSE | _COLUMNS.keys()
"""The kinds of facts that the verdict on a license, asked for by its id, is made from. Its keys are not among them."""


class Placed(Protocol):
    """What the filters look at."""

    @property
    def license_id(self) -> str: ...
    @property
    def product_id(self) -> str: ...
    @property
    def policy_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The filters of a stream; empty ones do not narrow. `license_ids` are in order, each once."""

    product_id: str = ""
    policy_id: str = ""
    license_ids: tuple[str, ...] = ()

    def has(self, license_: Placed) -> bool:
        """Whether a license meets them."""
        return (
            self.product_id in {"", license_.product_id}
            and self.policy_id in {"", license_.policy_id}
            and (not self.license_ids or license_.license_id in self.license_ids)
        )

    def __str__(self) -> str:
        return f"licenses|{self.product_id}|{self.policy_id}|{','.join(self.license_ids)}"


@dataclass(frozen=True, slots=True)
class Group:
    """The licenses that have `value` in `column`."""

    column: str
    value: str


class Marks:
    """What has changed since a stream looked.

    Attributes:
        news: Set with each change.
        lost: Changes were not told: only the record knows.
        doubted: The caller's credential may have ended.
        overflowed: More has changed than is kept.
    """

    def __init__(self, narrowed: Narrowed) -> None:
        self.news = asyncio.Event()
        self.lost = self.overflowed = False
        self.doubted = True  # it may have ended between the call's beginning and the stream's
        self._narrowed = narrowed
        self._named = frozenset(narrowed.license_ids)
        self._licenses: dict[str, None] = {}
        self._groups: dict[Group, None] = {}

    def __len__(self) -> int:
        """How many licenses and groups wait."""
        return len(self._licenses) + len(self._groups)

    def touch(self, kind: str, key: str) -> None:
        """Something of one of the `TOLD` kinds has changed."""
        if self.overflowed:
            return  # the stream is cut: nothing more is kept
        if kind in _OF_A_LICENSE:
            if not self._named or key in self._named:
                self._mark((key,))
            return
        if kind == "policy" and self._narrowed.policy_id not in {"", key}:
            return
        column = _COLUMNS[kind]
        if column == "product_id" and self._narrowed.product_id not in {"", key}:
            return
        if self._named:
            self._mark(self._named)
            return
        self._groups[Group(column, key)] = None
        self.overflowed = len(self._groups) > MAX_GROUPS
        self.news.set()

    def _mark(self, license_ids: Iterable[str]) -> None:
        self._licenses.update(dict.fromkeys(license_ids))
        self.overflowed = len(self._licenses) > MAX_LICENSES
        self.news.set()

    def lose(self) -> None:
        """Whatever it is, it may have changed."""
        self.begin()
        self.lost = self.doubted = True
        self.news.set()

    def begin(self) -> None:
        """Nothing waits: all is read anew."""
        self._licenses.clear()
        self._groups.clear()
        self.lost = self.overflowed = False

    def doubt(self) -> None:
        """A credential, a binding or an account has changed."""
        self.doubted = True
        self.news.set()

    def take(self, most: int) -> list[str]:
        """The licenses that wait longest."""
        taken = list(islice(self._licenses, most))
        for license_id in taken:
            del self._licenses[license_id]
        return taken

    def take_group(self) -> Group | None:
        """The group that waits longest."""
        group = next(iter(self._groups), None)
        if group is not None:
            del self._groups[group]
        return group


class Dues:
    """The licenses that a stream has told of, and when time alone changes what it told."""

    def __init__(self) -> None:
        self._known: dict[str, datetime | None] = {}
        self._heap: list[tuple[datetime, str]] = []

    def __len__(self) -> int:
        """How many licenses it has told of."""
        return len(self._known)

    def __contains__(self, license_id: object) -> bool:
        """Whether it has told of a license."""
        return license_id in self._known

    @property
    def next(self) -> datetime | None:
        """When the next is due; None for never."""
        while self._heap and self._known.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def put(self, license_id: str, due: datetime | None) -> None:
        """What was told of a license holds until `due`."""
        known = self._known.get(license_id)
        self._known[license_id] = due
        if due is not None and due != known:
            heapq.heappush(self._heap, (due, license_id))
            if len(self._heap) > 2 * len(self._known) + 1000:  # most of it is of before
                self._heap = [(at, which) for which, at in self._known.items() if at is not None]
                heapq.heapify(self._heap)

    def drop(self, license_id: str) -> None:
        """The license is gone."""
        self._known.pop(license_id, None)

    def due(self, now: datetime, most: int) -> Sequence[tuple[str, datetime]]:
        """Those that are due, the first first; each is to be put or dropped then."""
        found: list[tuple[str, datetime]] = []
        while len(found) < most and (at := self.next) is not None and at <= now:
            _, license_id = heapq.heappop(self._heap)
            self._known[license_id] = None
            found.append((license_id, at))
        return found

    def clear(self) -> None:
        """Nothing was told yet."""
        self._known.clear()
        self._heap.clear()
