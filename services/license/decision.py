"""The decision: pure, from facts and a time. What part comes next in the table has its place in `Code` already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, Protocol

from services.license.model import Status

RECHECK_AFTER: Final = timedelta(minutes=5)


class Code(IntEnum):
    """The verdicts by their numbers on the wire: ten times the place of the check."""

    NOT_FOUND = 10
    BANNED = 20
    REVOKED = 30
    SUSPENDED = 40
    NOT_YET_VALID = 50
    EXPIRED = 60
    TIER_SCOPE_MISMATCH = 110
    VALID = 310


class Facts(Protocol):
    """What the checks read."""

    @property
    def status(self) -> str: ...
    @property
    def starts_at(self) -> datetime | None: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def key_expires_at(self) -> datetime | None: ...
    @property
    def customer_banned(self) -> bool: ...
    @property
    def tier(self) -> str | None: ...
    @property
    def tier_position(self) -> int | None: ...
    @property
    def required_position(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller wants the license to be fit for. `required_tier` is a slug; empty means any tier, or none."""

    required_tier: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`code` is the first of `all_codes`; `valid_until` is when time alone changes the answer, None for never."""

    valid: bool
    code: Code
    all_codes: tuple[Code, ...]
    valid_until: datetime | None
    recheck_after: timedelta
    detail: str


def _tier_is_too_low(facts: Facts, asked: Asked) -> bool:
    """A tier is met by itself and by those of a greater position; one that there is not is met by none."""
    if not asked.required_tier or facts.tier == asked.required_tier:
        return False
    return (
        facts.tier_position is None or facts.required_position is None or facts.tier_position <= facts.required_position
    )


CHECKS: Final[tuple[tuple[Code, Callable[[Facts, Asked, datetime], bool]], ...]] = (
    (Code.BANNED, lambda facts, asked, now: facts.status == Status.BANNED or facts.customer_banned),
    (Code.REVOKED, lambda facts, asked, now: facts.status == Status.REVOKED),
    (Code.SUSPENDED, lambda facts, asked, now: facts.status == Status.SUSPENDED),
    (Code.NOT_YET_VALID, lambda facts, asked, now: facts.starts_at is not None and now < facts.starts_at),
    (Code.EXPIRED, lambda facts, asked, now: facts.expires_at is not None and now >= facts.expires_at),
    (Code.TIER_SCOPE_MISMATCH, lambda facts, asked, now: _tier_is_too_low(facts, asked)),
)
"""The checks in their order; each is true when it fails."""

CUSTOMER_IS_BANNED: Final = "The customer who holds the license is banned."

DETAILS: Final = {
    Code.NOT_FOUND: "No license has this key or id.",
    Code.BANNED: "The license is banned.",
    Code.REVOKED: "The license is revoked.",
    Code.SUSPENDED: "The license is suspended.",
    Code.NOT_YET_VALID: "The license has not started yet.",
    Code.EXPIRED: "The license has expired.",
    Code.TIER_SCOPE_MISMATCH: "The license does not have the required tier, or a higher one.",
    Code.VALID: "The license is valid.",
}


def decide(facts: Facts | None, asked: Asked, now: datetime) -> Verdict:
    """The verdict on a license at `now`, for what is asked of it; None are the facts of a license that there is not."""
    if facts is None:
        return Verdict(False, Code.NOT_FOUND, (Code.NOT_FOUND,), None, RECHECK_AFTER, DETAILS[Code.NOT_FOUND])
    failed = tuple(code for code, fails in CHECKS if fails(facts, asked, now))
    until = _next_change(facts, now)
    recheck = RECHECK_AFTER if until is None else min(RECHECK_AFTER, until - now)
    if not failed:
        return Verdict(True, Code.VALID, (Code.VALID,), until, recheck, DETAILS[Code.VALID])
    by_customer = facts.customer_banned and facts.status != Status.BANNED
    detail = CUSTOMER_IS_BANNED if by_customer else DETAILS[failed[0]]
    return Verdict(False, failed[0], failed, until, recheck, detail)


def _next_change(facts: Facts, now: datetime) -> datetime | None:
    """The next moment at which the first code changes by time alone.

    Only an active license's does, and no banned customer's; but any answer changes when the key that found it ends.
    """
    own = (facts.starts_at, facts.expires_at) if facts.status == Status.ACTIVE and not facts.customer_banned else ()
    return min((at for at in (*own, facts.key_expires_at) if at is not None and at > now), default=None)
