"""Which transactions a reader saw. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A `pg_snapshot`: all transactions below `xmax` had ended, but those `in_progress`."""

    xmin: int
    """The lowest transaction that was in progress; `xmax` where none was."""
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `xmin:xmax:xid,xid`. ValueError for anything else."""
        xmin, xmax, in_progress = text.split(":")
        return cls(
            int(xmin), int(xmax), frozenset(int(xid) for xid in in_progress.split(",")) if in_progress else _NONE
        )

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(str(xid) for xid in sorted(self.in_progress))}"

    def sees(self, xid: int) -> bool:
        """Whether the transaction had ended: what it committed is in what was read."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)

    def covers(self, other: Snapshot) -> bool:
        """Whether it sees all that the other sees."""
        if self.xmax < other.xmax:
            return False
        if not self.in_progress:
            return True
        return all(xid in other.in_progress for xid in self.in_progress if xid < other.xmax)


_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of the record that something was read at.

    Transaction ids mean something within one epoch of one database cluster, and nothing beyond.
    """

    system_id: int
    epoch: UUID
    snapshot: Snapshot

    def is_of(self, other: Stamp) -> bool:
        """Whether the transaction ids of both mean the same."""
        return self.epoch == other.epoch and self.system_id == other.system_id
