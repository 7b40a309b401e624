"""Licenses in a second hand: what docs/licensing.md promises, written again without a look at the service. Pure.

Statuses, terms and codes are the words of the contract; times are aware and in UTC. Nothing here is stored or sent.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a policy says, as far as it decides anything; the defaults are those of a policy that says nothing."""

    duration: timedelta | None = None
    is_trial: bool = False
    trial_duration: timedelta | None = None
    expiration_strategy: str = "RESTRICT_ACCESS"
    grace_period: timedelta = timedelta(0)
    expiration_basis: str = "FROM_CREATION"
    renewal_basis: str = "FROM_EXPIRY"
    transfer_strategy: str = "KEEP_EXPIRY"
    max_uses: int | None = None
    uses_counted_by: str = "EXPLICIT"
    require_check_in: bool = False
    check_in_interval: str | None = None
    check_in_count: int = 1
    require_product_scope: bool = False
    require_policy_scope: bool = False
    require_user_scope: bool = False
    overridable: frozenset[str] = frozenset()

    @property
    def at_first(self) -> timedelta | None:
        return self.duration if self.trial_duration is None else self.trial_duration

    @property
    def waits(self) -> bool:
        """Whether the duration of a license counts only from something that has yet to happen."""
        return self.at_first is not None and self.expiration_basis != "FROM_CREATION"

    @property
    def lenient(self) -> bool:
        return self.expiration_strategy in {"MAINTAIN_ACCESS", "ALLOW_ACCESS"}

    @property
    def contradictory(self) -> bool:
        return (
            (self.trial_duration is not None and not self.is_trial)
            or (self.expiration_basis != "FROM_CREATION" and self.at_first is None)
            or (self.uses_counted_by == "VALIDATION" and self.max_uses is None)
            or (self.require_check_in and self.check_in_interval is None)
        )


@dataclass(frozen=True, slots=True)
class Tier:
    product_id: str
    slug: str
    position: int
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Policy:
    product_id: str
    terms: Terms
    asks_check_ins_since: datetime | None
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Customer:
    email: str
    subject_ref: str
    banned: bool = False
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Key:
    license_id: str
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class License:
    """`status` is what somebody did: never expired. `anchored`: the duration counts, or need not.

    `check_in_from` is the last check-in, or when a change of policy began to require them.
    """

    product_id: str
    policy_id: str
    tier_id: str
    customer_id: str
    key_hint: str
    starts_at: datetime | None
    expires_at: datetime | None
    anchored: bool
    created_at: datetime
    updated_at: datetime
    external_id: str = ""
    display_name: str = ""
    status: str = "active"
    status_reason: str = ""
    own_max_uses: int | None = None
    uses: int = 0
    checked_in_at: datetime | None = None
    check_in_from: datetime | None = None
    revision: int = 1


@dataclass(frozen=True, slots=True)
class State:
    """A whole account in one mode, by ids. A key's row outlives its license, since no key is given out twice."""

    products: Mapping[str, str] = field(default_factory=dict[str, str])
    """The codes."""
    tiers: Mapping[str, Tier] = field(default_factory=dict[str, Tier])
    policies: Mapping[str, Policy] = field(default_factory=dict[str, Policy])
    customers: Mapping[str, Customer] = field(default_factory=dict[str, Customer])
    licenses: Mapping[str, License] = field(default_factory=dict[str, License])
    keys: Mapping[str, Key] = field(default_factory=dict[str, Key])


def put(into: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    return {**into, key: value}


def canonical(key: str) -> str:
    return key.upper().replace("O", "0").replace("I", "1").replace("L", "1")


# What follows from time.


def end_of(found: License, terms: Terms) -> datetime | None:
    """When expiry and grace are over."""
    return None if found.expires_at is None else found.expires_at + terms.grace_period


def is_over(found: License, terms: Terms, now: datetime) -> bool:
    end = end_of(found, terms)
    return end is not None and end <= now


def status_of(found: License, terms: Terms, now: datetime) -> str:
    if found.status == "active" and is_over(found, terms, now):
        return "revoked" if terms.expiration_strategy == "REVOKE" else "expired"
    return found.status


def limit_of(found: License, terms: Terms) -> int | None:
    own = found.own_max_uses if "MAX_USES" in terms.overridable else None
    return terms.max_uses if own is None else own


def check_in_due(found: License, policy: Policy) -> datetime | None:
    terms = policy.terms
    if not terms.require_check_in:
        return None
    begun = (found.check_in_from or found.starts_at or found.created_at, policy.asks_check_ins_since, found.starts_at)
    start = max(at for at in begun if at is not None)
    days = {"DAY": 1, "WEEK": 7}.get(terms.check_in_interval or "")
    if days is not None:
        return start + timedelta(days=days * terms.check_in_count)
    months = start.month - 1 + terms.check_in_count * (12 if terms.check_in_interval == "YEAR" else 1)
    year, month = start.year + months // 12, months % 12 + 1
    return start.astimezone(UTC).replace(year=year, month=month, day=min(start.day, monthrange(year, month)[1]))


_SOON: Final = timedelta(days=3)


def marks_of(found: License, policy: Policy, now: datetime) -> list[str]:
    """INACTIVE takes 90 days, which no test has."""
    made: list[str] = []
    status, due = status_of(found, policy.terms, now), check_in_due(found, policy)
    if status == "active" and found.expires_at is not None and found.expires_at <= now + _SOON:
        made.append("EXPIRING" if found.expires_at > now else "IN_GRACE")
    usable = status == "active" or (status == "expired" and policy.terms.lenient)
    if usable and due is not None and due <= now:
        made.append("CHECK_IN_OVERDUE")
    return made


# Validation.


@dataclass(frozen=True, slots=True)
class Asked:
    """What a validation asks for; empty asks for nothing. `user` is a way of naming a customer, and the name."""

    product: str = ""
    policy_id: str = ""
    required_tier: str = ""
    user: tuple[str, str] | None = None
    entitlements: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`until` is when time alone makes it another."""

    valid: bool
    codes: tuple[str, ...]
    until: datetime | None = None


_TELLING: Final = frozenset({"IN_GRACE", "VALID"})


def codes_of(state: State, license_id: str, asked: Asked, now: datetime) -> tuple[bool, tuple[str, ...]]:
    """Whether the license is fit for what is asked of it, and every code in the order of the docs' table."""
    found = state.licenses[license_id]
    policy = state.policies[found.policy_id]
    terms, over = policy.terms, is_over(found, policy.terms, now)
    holder = state.customers.get(found.customer_id)
    due, limit = check_in_due(found, policy), limit_of(found, terms)
    ended = found.status == "revoked" or status_of(found, terms, now) == "revoked"
    refusing = {
        "BANNED": found.status == "banned" or (holder is not None and holder.banned),
        "REVOKED": ended,
        "SUSPENDED": found.status == "suspended",
        "NOT_YET_VALID": found.starts_at is not None and now < found.starts_at,
        "EXPIRED": over and not terms.lenient,
        "CHECK_IN_OVERDUE": due is not None and due <= now,
        "PRODUCT_SCOPE_REQUIRED": terms.require_product_scope and not asked.product,
        "PRODUCT_SCOPE_MISMATCH": bool(asked.product)
        and asked.product not in (found.product_id, state.products[found.product_id]),
        "POLICY_SCOPE_REQUIRED": terms.require_policy_scope and not asked.policy_id,
        "POLICY_SCOPE_MISMATCH": bool(asked.policy_id) and asked.policy_id != found.policy_id,
        "TIER_SCOPE_MISMATCH": bool(asked.required_tier) and not _meets(state, found, asked.required_tier),
        "USER_SCOPE_REQUIRED": terms.require_user_scope and asked.user is None,
        "USER_SCOPE_MISMATCH": asked.user is not None and not _is(found, holder, *asked.user),
        "ENTITLEMENTS_SCOPE_EMPTY": asked.entitlements == (),
        "ENTITLEMENTS_MISSING": bool(asked.entitlements),
        "USES_EXCEEDED": limit is not None and found.uses >= limit,
    }
    telling = {
        "IN_GRACE": found.expires_at is not None and found.expires_at <= now and not over,
        "EXPIRED": over and terms.lenient,
    }
    failed = tuple(code for code, holds in refusing.items() if holds)
    told = tuple(code for code, holds in telling.items() if holds)
    return not failed, failed + told or ("VALID",)


def _meets(state: State, found: License, required: str) -> bool:
    mine = state.tiers.get(found.tier_id)
    if mine is None:
        return False
    wanted = [tier for tier in state.tiers.values() if (tier.product_id, tier.slug) == (found.product_id, required)]
    return any(mine.slug == tier.slug or mine.position > tier.position for tier in wanted)


def _is(found: License, holder: Customer | None, way: str, name: str) -> bool:
    if holder is None:
        return False
    if way == "customer_id":
        return found.customer_id == name
    return bool(name) and (holder.email == name.lower() if way == "email" else holder.subject_ref == name)


def verdict(state: State, key: str, license_id: str, asked: Asked, now: datetime) -> tuple[str, Verdict]:
    """The license that a key or an id leads to, empty for none, and the verdict."""
    row = state.keys.get(canonical(key)) if key else Key(license_id)
    if row is None or row.license_id not in state.licenses or (row.ends_at is not None and row.ends_at <= now):
        return "", Verdict(False, ("NOT_FOUND",))
    found = state.licenses[row.license_id]
    policy = state.policies[found.policy_id]
    valid, codes = codes_of(state, row.license_id, asked, now)
    moments = [found.starts_at, found.expires_at, end_of(found, policy.terms), check_in_due(found, policy)]
    changes = [row.ends_at] if row.ends_at is not None else []
    for at in moments:
        if at is not None and at > now:
            then = codes_of(state, row.license_id, asked, at)
            if (then[0], then[1][0]) != (valid, codes[0]):
                changes.append(at)
    return row.license_id, Verdict(valid, codes, min(changes, default=None))


def is_near(state: State, license_id: str, now: datetime, within: timedelta = timedelta(minutes=2)) -> bool:
    """Whether some moment of a license's life is so near that a test cannot say on which side of it an answer is."""
    found = state.licenses[license_id]
    policy = state.policies[found.policy_id]
    moments = [found.starts_at, found.expires_at, end_of(found, policy.terms), check_in_due(found, policy)]
    moments += [None if at is None else at - _SOON for at in moments[1:2]]
    moments += [key.ends_at for key in state.keys.values() if key.license_id == license_id and key.ends_at is not None
                and key.ends_at > now]  # fmt: skip
    return any(at is not None and abs(at - now) < within for at in moments)
