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
    VALID = 310


class Facts(Protocol):
    """What the checks read."""

    @property
    def status(self) -> str: ...
    @property
    def starts_at(self) -> datetime | None: ...
    @property
    def expires_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """`code` is the first of `all_codes`; `valid_until` is when time alone changes the answer, None for never."""

    valid: bool
    code: Code
    all_codes: tuple[Code, ...]
    valid_until: datetime | None
    recheck_after: timedelta


CHECKS: Final[tuple[tuple[Code, Callable[[Facts, datetime], bool]], ...]] = (
    (Code.BANNED, lambda facts, now: facts.status == Status.BANNED),
    (Code.REVOKED, lambda facts, now: facts.status == Status.REVOKED),
    (Code.SUSPENDED, lambda facts, now: facts.status == Status.SUSPENDED),
    (Code.NOT_YET_VALID, lambda facts, now: facts.starts_at is not None and now < facts.starts_at),
    (Code.EXPIRED, lambda facts, now: facts.expires_at is not None and now >= facts.expires_at),
)
"""The checks in their order; each is true when it fails."""

DETAILS: Final = {
    Code.NOT_FOUND: "No license has this key or id.",
    Code.BANNED: "The license is banned.",
    Code.REVOKED: "The license is revoked.",
    Code.SUSPENDED: "The license is suspended.",
    Code.NOT_YET_VALID: "The license has not started yet.",
    Code.EXPIRED: "The license has expired.",
    Code.VALID: "The license is valid.",
}


def decide(facts: Facts | None, now: datetime) -> Verdict:
    """The verdict on a license at `now`; None are the facts of a license that there is not."""
    if facts is None:
        return Verdict(False, Code.NOT_FOUND, (Code.NOT_FOUND,), None, RECHECK_AFTER)
    failed = tuple(code for code, fails in CHECKS if fails(facts, now))
    until = _next_change(facts, now)
    recheck = RECHECK_AFTER if until is None else min(RECHECK_AFTER, until - now)
    if failed:
        return Verdict(False, failed[0], failed, until, recheck)
    return Verdict(True, Code.VALID, (Code.VALID,), until, recheck)


def _next_change(facts: Facts, now: datetime) -> datetime | None:
    """The next moment at which the first code changes by time alone: only an active license's does."""
    if facts.status != Status.ACTIVE:
        return None
    return min((at for at in (facts.starts_at, facts.expires_at) if at is not None and at > now), default=None)
