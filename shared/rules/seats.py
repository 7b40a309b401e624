"""How many seats a license has: the limits of its policy, its own, and what may be exceeded. Pure."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Final


class OverageStrategy(StrEnum):
    """By how much licenses may exceed the limits on machines."""

    NO_OVERAGE = "NO_OVERAGE"
    ALLOW_1_25X = "ALLOW_1_25X"
    ALLOW_1_5X = "ALLOW_1_5X"
    ALLOW_2X = "ALLOW_2X"
    ALWAYS_ALLOW = "ALWAYS_ALLOW"


# Quarters, since the product of a great limit and a fraction is no float's to round.
_QUARTERS: Final = {
    OverageStrategy.NO_OVERAGE: 4,
    OverageStrategy.ALLOW_1_25X: 5,
    OverageStrategy.ALLOW_1_5X: 6,
    OverageStrategy.ALLOW_2X: 8,
}


def cap(limit: int | None, overage: OverageStrategy) -> int | None:
    """The most that may ever be taken: the limit times the factor, rounded down; None for any number."""
    if limit is None or overage is OverageStrategy.ALWAYS_ALLOW:
        return None
    return limit * _QUARTERS[overage] // 4


def effective_limit(
    policy_limit: int | None, override: int | None, overridable: Collection[str], name: str
) -> int | None:
    """The limit of one license; None for unlimited.

    Args:
        policy_limit: Its policy's.
        override: The license's own, which counts only while its policy lets it override this limit.
        overridable: The limits that the policy lets licenses override, such as `MAX_MACHINES`.
        name: Which limit it is, in the same words.
    """
    return override if override is not None and name in overridable else policy_limit
