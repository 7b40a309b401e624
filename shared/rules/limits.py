"""How often callers may call. Pure: a limit, what an account is held to, and a bucket that is one number.

A bucket lets `burst` through at once and then `per_s` a second. It is full when nobody has taken from it for a while,
and a full bucket is the same as none, so nothing needs to be kept of callers that are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

SECOND: Final = 1.0
MINUTE: Final = 60.0
DAY: Final = 86_400.0


class LimitKind(StrEnum):
    """What is limited; the values are the fields of `AccountLimits` in the contract, and the keys in the record."""

    MANAGEMENT_CALLS = "management_calls_per_second"
    LICENSE_CALLS = "license_calls_per_second"
    SESSION_CALLS = "session_calls_per_minute"
    ACTIVATIONS_PER_MINUTE = "activations_per_minute"
    ACTIVATIONS_PER_DAY = "activations_per_day"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many in a span of time: `count` at once when none were made for `span_s` seconds, and on average never more."""

    count: int
    span_s: float
    words: str
    """What is counted and how long the span is, after the number: `management calls a second per credential`."""


DEFAULTS: Final[Mapping[LimitKind, Limit]] = MappingProxyType(
    {
        LimitKind.MANAGEMENT_CALLS: Limit(500, SECOND, "management calls a second per credential"),
        LimitKind.LICENSE_CALLS: Limit(10, SECOND, "calls a second for each license, with publishable keys"),
        LimitKind.SESSION_CALLS: Limit(60, MINUTE, "calls a minute per customer session"),
        LimitKind.ACTIVATIONS_PER_MINUTE: Limit(
            10, MINUTE, "activations a minute for each license, with publishable keys"
        ),
        LimitKind.ACTIVATIONS_PER_DAY: Limit(20, DAY, "activations a day for each license, with publishable keys"),
    }
)

Limits = Mapping[str, int]
"""What an account has set, by the kinds' names; what is absent has its default, and 0 means none."""


def count_of(kind: LimitKind, limits: Limits) -> int:
    """How many an account's callers may make in the span of this kind; 0 for any number."""
    return limits.get(kind.value, DEFAULTS[kind].count)


@dataclass(frozen=True, slots=True)
class Taken:
    """A bucket after somebody asked it.

    Attributes:
        full_at: When it will be full again, by the clock that the caller asked with; the bucket is this number alone.
        wait_s: 0 when what was asked for was taken; else the seconds until it can be, and nothing was taken.
    """

    full_at: float
    wait_s: float


def take(full_at: float, now: float, *, per_s: float, burst: float, wanted: float = 1.0) -> Taken:
    """Takes `wanted` from a bucket, or nothing.

    More than the bucket holds is taken when it is full, and whoever comes next waits that much longer: what is never
    there at once could otherwise never be had.

    Args:
        full_at: When the bucket will be full; any time in the past for one that is.
        now: The time, by any clock that never goes back.
        per_s: What flows in a second; over 0.
        burst: What it holds; at least 1.
        wanted: What to take.
    """
    full_at = max(full_at, now)
    missing = (full_at - now) * per_s
    room = burst - min(wanted, burst)
    # A token that is there but for the rounding of a float is there.
    if missing > room + 1e-9 * burst:
        return Taken(full_at, (missing - room) / per_s)
    return Taken(full_at + wanted / per_s, 0.0)
