"""The decision: pure, from facts and a time. What later parts add to the table has its place in `Code` already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

from services.license.facts import Facts, next_check_in, uses_limit
from services.license.model import Status
from services.license.terms import LENIENT, ExpirationStrategy
from shared.rules.expiry import ended, grace_end

RECHECK_AFTER: Final = timedelta(minutes=5)


class Code(IntEnum):
    """The verdicts by their numbers on the wire: ten times the place of the check."""

    NOT_FOUND = 10
    BANNED = 20
    REVOKED = 30
    SUSPENDED = 40
    NOT_YET_VALID = 50
    EXPIRED = 60
    CHECK_IN_OVERDUE = 70
    PRODUCT_SCOPE_REQUIRED = 90
    PRODUCT_SCOPE_MISMATCH = 91
    POLICY_SCOPE_REQUIRED = 100
    POLICY_SCOPE_MISMATCH = 101
    TIER_SCOPE_MISMATCH = 110
    USER_SCOPE_REQUIRED = 120
    USER_SCOPE_MISMATCH = 121
    ENTITLEMENTS_SCOPE_EMPTY = 130
    ENTITLEMENTS_MISSING = 140
    USES_EXCEEDED = 280
    IN_GRACE = 290
    VALID = 310


@dataclass(frozen=True, slots=True)
class User:
    """The customer that a caller names: exactly one of the three is set. The email is a SHA-256 of its lower case."""

    customer_id: str = ""
    subject_ref: str = ""
    email_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller wants the license to be fit for; empty fields ask for nothing.

    `product` is an id or a code, `required_tier` a slug. `entitlements` None asks for none; an empty tuple is refused.
    """

    product: str = ""
    policy_id: str = ""
    required_tier: str = ""
    user: User | None = None
    entitlements: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`code` is the first of `all_codes`; `valid_until` is when time alone changes the answer, None for never."""

    valid: bool
    code: Code
    all_codes: tuple[Code, ...]
    missing: tuple[str, ...]
    valid_until: datetime | None
    recheck_after: timedelta
    detail: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `fails` says whether the license is not fit. One that does not `refuse` only tells."""

    name: str
    code: Code
    fails: Callable[[Facts, Asked, datetime], bool]
    refuses: bool = True


def _is_over(facts: Facts, now: datetime) -> bool:
    return facts.expires_at is not None and ended(facts.expires_at, facts.grace_period, now)


def _is_revoked(facts: Facts, asked: Asked, now: datetime) -> bool:
    """By somebody, or by its policy at its end."""
    del asked
    at_its_end = facts.expiration_strategy == ExpirationStrategy.REVOKE and facts.status == Status.ACTIVE
    return facts.status == Status.REVOKED or (at_its_end and _is_over(facts, now))


def _is_in_grace(facts: Facts, asked: Asked, now: datetime) -> bool:
    del asked
    return facts.expires_at is not None and facts.expires_at <= now and not _is_over(facts, now)


def _checks_in_late(facts: Facts, asked: Asked, now: datetime) -> bool:
    del asked
    due = next_check_in(facts)
    return due is not None and now >= due


def _tier_is_too_low(facts: Facts, asked: Asked, now: datetime) -> bool:
    """A tier is met by itself and by those of a greater position; one that there is not is met by none."""
    del now
    if not asked.required_tier or facts.tier == asked.required_tier:
        return False
    required = facts.tiers.get(asked.required_tier)
    return facts.tier_position is None or required is None or facts.tier_position <= required


def _is_anothers(facts: Facts, asked: Asked, now: datetime) -> bool:
    del now
    user = asked.user
    if user is None:
        return False
    return not (
        (user.customer_id != "" and user.customer_id == facts.customer_id)
        or (user.subject_ref != "" and user.subject_ref == facts.customer_subject_ref)
        or (user.email_hash != b"" and user.email_hash == facts.customer_email_hash)
    )


def _has_no_uses_left(facts: Facts, asked: Asked, now: datetime) -> bool:
    del asked, now
    limit = uses_limit(facts)
    return limit is not None and facts.uses >= limit


CHECKS: Final = (
    Check("banned", Code.BANNED, lambda facts, asked, now: facts.status == Status.BANNED or facts.customer_banned),
    Check("revoked", Code.REVOKED, _is_revoked),
    Check("suspended", Code.SUSPENDED, lambda facts, asked, now: facts.status == Status.SUSPENDED),
    Check(
        "started", Code.NOT_YET_VALID, lambda facts, asked, now: facts.starts_at is not None and now < facts.starts_at
    ),
    Check(
        "expired",
        Code.EXPIRED,
        lambda facts, asked, now: facts.expiration_strategy not in LENIENT and _is_over(facts, now),
    ),
    Check("check_in", Code.CHECK_IN_OVERDUE, _checks_in_late),
    Check(
        "product_named",
        Code.PRODUCT_SCOPE_REQUIRED,
        lambda facts, asked, now: facts.require_product_scope and not asked.product,
    ),
    Check(
        "product",
        Code.PRODUCT_SCOPE_MISMATCH,
        lambda facts, asked, now: asked.product not in {"", facts.product_id, facts.product_code},
    ),
    Check(
        "policy_named",
        Code.POLICY_SCOPE_REQUIRED,
        lambda facts, asked, now: facts.require_policy_scope and not asked.policy_id,
    ),
    Check(
        "policy",
        Code.POLICY_SCOPE_MISMATCH,
        lambda facts, asked, now: asked.policy_id not in {"", facts.policy_id},
    ),
    Check("tier", Code.TIER_SCOPE_MISMATCH, _tier_is_too_low),
    Check(
        "user_named",
        Code.USER_SCOPE_REQUIRED,
        lambda facts, asked, now: facts.require_user_scope and asked.user is None,
    ),
    Check("user", Code.USER_SCOPE_MISMATCH, _is_anothers),
    Check("entitlements_named", Code.ENTITLEMENTS_SCOPE_EMPTY, lambda facts, asked, now: asked.entitlements == ()),
    # Features cannot be attached yet: whatever is asked for is missing.
    Check("entitlements", Code.ENTITLEMENTS_MISSING, lambda facts, asked, now: bool(asked.entitlements)),
    Check("uses", Code.USES_EXCEEDED, _has_no_uses_left),
    Check("grace", Code.IN_GRACE, _is_in_grace, refuses=False),
    Check(
        "expired_and_usable",
        Code.EXPIRED,
        lambda facts, asked, now: facts.expiration_strategy in LENIENT and _is_over(facts, now),
        refuses=False,
    ),
)
"""The checks in their order."""

CUSTOMER_IS_BANNED: Final = "The customer who holds the license is banned."
EXPIRED_AND_USABLE: Final = "The license has expired, and may still be used."

DETAILS: Final = {
    Code.NOT_FOUND: "No license has this key or id.",
    Code.BANNED: "The license is banned.",
    Code.REVOKED: "The license is revoked.",
    Code.SUSPENDED: "The license is suspended.",
    Code.NOT_YET_VALID: "The license has not started yet.",
    Code.EXPIRED: "The license has expired.",
    Code.CHECK_IN_OVERDUE: "The license has not checked in for longer than its policy allows.",
    Code.PRODUCT_SCOPE_REQUIRED: "The policy asks for the product to be named.",
    Code.PRODUCT_SCOPE_MISMATCH: "The license is of another product.",
    Code.POLICY_SCOPE_REQUIRED: "The policy asks to be named.",
    Code.POLICY_SCOPE_MISMATCH: "The license is under another policy.",
    Code.TIER_SCOPE_MISMATCH: "The license does not have the required tier, or a higher one.",
    Code.USER_SCOPE_REQUIRED: "The policy asks for the user to be named.",
    Code.USER_SCOPE_MISMATCH: "The license is not this user's.",
    Code.ENTITLEMENTS_SCOPE_EMPTY: "The list of required entitlements is empty.",
    Code.ENTITLEMENTS_MISSING: "The license lacks required entitlements.",
    Code.USES_EXCEEDED: "The license has no uses left.",
    Code.IN_GRACE: "The license has expired and is in its grace period.",
    Code.VALID: "The license is valid.",
}


def decide(facts: Facts | None, asked: Asked, now: datetime) -> Verdict:
    """The verdict on a license at `now`, for what is asked of it; None are the facts of a license that there is not."""
    if facts is None:
        none = (Code.NOT_FOUND,)
        return Verdict(False, Code.NOT_FOUND, none, (), None, RECHECK_AFTER, DETAILS[Code.NOT_FOUND])
    failed = tuple(check for check in CHECKS if check.fails(facts, asked, now))
    until = _next_change(facts, asked, now, failed[0] if failed else None)
    recheck = RECHECK_AFTER if until is None else min(RECHECK_AFTER, until - now)
    codes = tuple(check.code for check in failed) or (Code.VALID,)
    valid = not any(check.refuses for check in failed)
    missing = asked.entitlements or ()
    return Verdict(valid, codes[0], codes, missing, until, recheck, _detail(facts, failed))


def _detail(facts: Facts, failed: tuple[Check, ...]) -> str:
    if not failed:
        return DETAILS[Code.VALID]
    first = failed[0]
    if first.code is Code.BANNED and facts.status != Status.BANNED:
        return CUSTOMER_IS_BANNED
    return EXPIRED_AND_USABLE if first.code is Code.EXPIRED and not first.refuses else DETAILS[first.code]


def _next_change(facts: Facts, asked: Asked, now: datetime, first: Check | None) -> datetime | None:
    """The next moment at which the first check that fails becomes another by time alone.

    Any answer changes when the key that found the license ends.
    """
    key_end = facts.key_expires_at if facts.key_expires_at is not None and facts.key_expires_at > now else None
    for at in sorted(at for at in _boundaries(facts) if at > now):
        if key_end is not None and key_end <= at:
            return key_end
        if next((check for check in CHECKS if check.fails(facts, asked, at)), None) is not first:
            return at
    return key_end


def changes_at(facts: Facts, now: datetime) -> datetime | None:
    """The next moment at which time alone may change anything of an answer; None for never."""
    key_end = () if facts.key_expires_at is None else (facts.key_expires_at,)
    return min((at for at in (*_boundaries(facts), *key_end) if at > now), default=None)


def _boundaries(facts: Facts) -> Iterator[datetime]:
    """The moments at which a check may change by time alone."""
    end = grace_end(facts.expires_at, facts.grace_period)
    yield from (at for at in (facts.starts_at, facts.expires_at, end, next_check_in(facts)) if at is not None)
