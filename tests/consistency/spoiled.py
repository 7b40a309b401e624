"""`lictor serve` without one of its safeguards: `python -m tests.consistency.spoiled no_wait`. The hammer must find it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from services.cli import main
from shared.freshness.changes import ChangeMap
from shared.freshness.memory import Memory
from shared.freshness.poll import Polled, RecordSource
from shared.freshness.sealed_entry import BODY_AT, Sealer
from shared.freshness.snapshot import Snapshot
from shared.freshness.tail import Tail
from shared.rpc.effects import EffectWaits


def no_wait() -> None:
    """Calls that take rights away answer as soon as they are committed."""

    async def hold(self: EffectWaits) -> None:
        del self

    EffectWaits.hold = hold


def no_lease() -> None:
    """Memory answers for as long as the process lives."""
    Tail.fresh = lambda self: self.ready


def no_eviction() -> None:
    """What changed stays in memory."""

    def drop(self: Memory, key: str) -> None:
        del self, key

    Memory.drop = drop


def callers_stay() -> None:
    """Sessions and workloads stay in memory as they were."""
    dropped = Memory.drop

    def drop(self: Memory, key: str) -> None:
        if not key.startswith(("customer_session:", "workload:")):
            dropped(self, key)

    Memory.drop = drop


def machines_stay() -> None:
    """Machines, what has a fingerprint, and the counts of seats stay in memory as they were."""
    dropped = Memory.drop

    def drop(self: Memory, key: str) -> None:
        if not key.startswith(("machine:", "fingerprint:", "seats:")):
            dropped(self, key)

    Memory.drop = drop


def any_age() -> None:
    """What was read before a change that is known is let into memory after it."""

    def allows(self: ChangeMap, key: str, read_at: Snapshot) -> bool:
        del self, key, read_at
        return True

    ChangeMap.allows = allows


def ahead() -> None:
    """What was read after the tail's state is let into memory beside what was not."""

    def covers(self: Snapshot, other: Snapshot) -> bool:
        del self, other
        return True

    Snapshot.covers = covers


def no_seal() -> None:
    """Whatever is found in Redis is taken for what was put there."""

    def opened(self: Sealer, name: bytes, epoch: UUID, entry: bytes) -> bytes:
        del self, name, epoch
        return entry[BODY_AT:]

    Sealer.open = opened


def old_time() -> None:
    """All answers out of memory say the time of the first poll."""
    poll, first = RecordSource.poll, list[datetime]()

    async def polled(self: RecordSource, since: Snapshot | None, most: int, within_s: float) -> Polled:
        found = await poll(self, since, most, within_s)
        first.append(found.at)
        return replace(found, at=first[0])

    RecordSource.poll = polled


WAYS: Final[dict[str, Callable[[], None]]] = {
    way.__name__: way
    for way in (no_wait, no_lease, no_eviction, callers_stay, machines_stay, any_age, ahead, no_seal, old_time)
}

if __name__ == "__main__":
    WAYS[sys.argv[1]]()
    sys.argv[1:] = ["serve"]
    sys.exit(main())
