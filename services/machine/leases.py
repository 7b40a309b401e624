"""Leases of seats: how long they last, and whose they are. Pure.

A lease that is over is over, though nobody has come for the seat yet: it is acquired again, never renewed. So whoever was told
that its lease was over may rely on it, and so may whoever read that of somebody else.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from services.machine.model import Machine
from services.machine.terms import Terms
from shared.errors import DomainError, Reason

DEFAULT_TTL: Final = timedelta(seconds=60)
LEAST_TTL: Final = timedelta(seconds=10)
MOST_TTL: Final = timedelta(hours=1)
DEFAULT_GRACE: Final = timedelta(seconds=30)
LEAST_GRACE: Final = timedelta(seconds=5)
MOST_GRACE: Final = timedelta(minutes=5)
NOTICED_WITHIN: Final = timedelta(seconds=1.5)
"""How late a server may notice that a connection was closed; under Envoy it asks every second."""
MOST_WAIT: Final = timedelta(seconds=20)
"""How long a call may wait for a seat."""


def lease_end(terms: Terms, first_activated_at: datetime | None, now: datetime, ttl: timedelta) -> datetime:
    """When a lease that begins or is renewed at `now` is over: never past the license's own end."""
    ends = terms.ends_at(first_activated_at)
    lasts = now.astimezone(UTC) + ttl
    return lasts if ends is None else min(lasts, ends.astimezone(UTC))


def held_for(grace: timedelta) -> timedelta:
    """How long a lease lasts from each renewal where a stream holds it: so much less than its grace that the last renewal, which
    may come when the holder is gone already, does not outlast the grace."""
    return grace - NOTICED_WITHIN


def refuse_lost(machine: Machine, epoch: int, now: datetime) -> None:
    """SEAT_LOST where a lease is not the machine's present one, or is over."""
    if not machine.live or machine.lease_epoch != epoch or machine.lease_over(now):
        raise seat_lost(machine.machine_id, epoch)


def seat_lost(machine_id: str, epoch: int) -> DomainError:
    """SEAT_LOST."""
    return DomainError(
        Reason.SEAT_LOST,
        "the lease is over, or the seat has gone to somebody else; acquire a seat again",
        metadata={"id": machine_id, "epoch": str(epoch)},
    )
