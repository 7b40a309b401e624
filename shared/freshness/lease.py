"""How long a process may answer from memory, and how long a call that takes rights away waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DRIFT: Final = 1.01
"""By how much the clocks of two machines may differ in speed."""
MARGIN_S: Final = 0.005
KNOWN_FOR_S: Final = 60.0
"""How long after a change of L leases take the shorter of the two, and waits the longer. So long what is known of L may
be old."""


LEASE_COLUMNS: Final = "l.l_ms, l.previous_l_ms, l.changed_at > clock_timestamp() - interval '60 s' AS just_changed"
LEASE: Final = f"SELECT {LEASE_COLUMNS} FROM record.lease AS l"  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """L, as the record has it.

    Attributes:
        l_ms: Its value, in milliseconds.
        previous_l_ms: The one before.
        just_changed: Whether it changed less than 60 seconds ago.
    """

    l_ms: int
    previous_l_ms: int
    just_changed: bool

    @property
    def lease_s(self) -> float:
        """How long a lease lasts, from when it was asked for."""
        return (min(self.l_ms, self.previous_l_ms) if self.just_changed else self.l_ms) / 1000

    @property
    def wait_s(self) -> float:
        """How long after a commit no lease is left that began before it."""
        l_ms = max(self.l_ms, self.previous_l_ms) if self.just_changed else self.l_ms
        return l_ms / 1000 * DRIFT + MARGIN_S
