"""The decision: pure, from facts and a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.license import machines
from services.license.asked import Asked
from services.license.codes import CUSTOMER_IS_BANNED, DETAILS, EXPIRED_AND_USABLE, LEASE_IS_OVER, Code
from services.license.facts import Facts, next_check_in, uses_limit
from services.license.model import Status
from services.license.terms import LENIENT, ExpirationStrategy
from shared.facts.customers import CustomerValue
from shared.facts.machines import Machine
from shared.rules.expiry import ended, grace_end

RECHECK_AFTER: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`code` is the first of `all_codes`; `valid_until` is when time alone changes the answer, None for never. `machine` is the
    one that was meant, if it was found."""

    valid: bool
    code: Code
    all_codes: tuple[Code, ...]
    missing: tuple[str, ...]
    valid_until: datetime | None
    recheck_after: timedelta
    detail: str
    machine: Machine | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `fails` says whether the license is not fit. One that does not `refuse` only tells, and so does one of a limit
    that is exceeded by no more than the policy allows."""

    name: str
    code: Code
    fails: Callable[[Facts, Asked, datetime], bool]
    refuses: bool = True

    def refuses_for(self, facts: Facts) -> bool:
        """Whether a license that fails it may not be used."""
        return self.refuses and (self.code not in machines.LIMITS or machines.taken(facts, self.code).is_refused)


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
    """A machine that has a user is that user's; else the license is its holder's."""
    user = asked.user
    if user is None:
        return False
    machine = machines.machine_of(facts, asked, now)
    if machine is not None and machine.user_id is not None:
        return not machines.is_users(user, machine.user_id, machine.user)
    holder = CustomerValue(facts.customer_subject_ref, facts.customer_email_hash, facts.customer_banned)
    return not machines.is_users(user, facts.customer_id, holder)


def _has_no_uses_left(facts: Facts, asked: Asked, now: datetime) -> bool:
    del asked, now
    limit = uses_limit(facts)
    return limit is not None and facts.uses >= limit


def _exceeds(code: Code) -> Callable[[Facts, Asked, datetime], bool]:
    name = machines.LIMITS[code]

    def fails(facts: Facts, asked: Asked, now: datetime) -> bool:
        del asked, now
        if not facts.machines.strict or machines.limit_of(facts, name) is None:  # as most limits are
            return False
        return machines.taken(facts, code).is_exceeded

    return fails


_OF_MACHINES: Final = (
    Check("machine_named", Code.MACHINE_SCOPE_REQUIRED, machines.lacks_machine_id),
    Check(
        "machine_there",
        Code.NO_MACHINE,
        lambda facts, asked, now: not facts.machines.floating and machines.has_no_machine(facts, asked, now),
    ),
    Check(
        "machines_there",
        Code.NO_MACHINES,
        lambda facts, asked, now: facts.machines.floating and machines.has_no_machine(facts, asked, now),
    ),
    Check("machine", Code.MACHINE_SCOPE_MISMATCH, machines.has_other_machine),
    Check("fingerprint_shown", Code.FINGERPRINT_SCOPE_REQUIRED, machines.lacks_fingerprint),
    Check("fingerprint_named", Code.FINGERPRINT_SCOPE_EMPTY, machines.has_empty_fingerprint),
    Check("fingerprint", Code.FINGERPRINT_NOT_FOUND, machines.has_unknown_fingerprint),
    Check("heartbeat_started", Code.HEARTBEAT_NOT_STARTED, machines.has_silent_machine),
    Check("heartbeat", Code.HEARTBEAT_DEAD, machines.has_dead_machine),
    Check("components_shown", Code.COMPONENTS_SCOPE_REQUIRED, machines.lacks_components),
    Check("components_named", Code.COMPONENTS_SCOPE_EMPTY, machines.has_empty_components),
    Check("components", Code.COMPONENTS_SCOPE_MISMATCH, machines.has_other_components),
    *(Check(f"limit_of_{name}", code, _exceeds(code)) for code, name in machines.LIMITS.items()),
)

_WITHOUT_MACHINES: Final = (
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
CHECKS: Final = tuple(
    sorted((*_WITHOUT_MACHINES, *_OF_MACHINES), key=lambda check: check.code if check.refuses else Code.VALID)
)
"""The checks in their order."""


def decide(facts: Facts | None, asked: Asked, now: datetime) -> Verdict:
    """The verdict on a license at `now`, for what is asked of it; None are the facts of a license that there is not."""
    if facts is None:
        none = (Code.NOT_FOUND,)
        return Verdict(False, Code.NOT_FOUND, none, (), None, RECHECK_AFTER, DETAILS[Code.NOT_FOUND])
    failed = tuple(check for check in _checks(facts) if check.fails(facts, asked, now))
    until = _next_change(facts, asked, now, failed[0] if failed else None)
    recheck = RECHECK_AFTER if until is None else min(RECHECK_AFTER, until - now)
    codes = tuple(check.code for check in failed) or (Code.VALID,)
    valid = not any(check.refuses_for(facts) for check in failed)
    missing = asked.entitlements or ()
    machine = machines.machine_of(facts, asked, now)
    return Verdict(valid, codes[0], codes, missing, until, recheck, _detail(facts, machine, now, failed), machine)


def _checks(facts: Facts) -> tuple[Check, ...]:
    """Those that can fail at all."""
    return CHECKS if machines.concerns_machines(facts) else _WITHOUT_MACHINES


def _detail(facts: Facts, machine: Machine | None, now: datetime, failed: tuple[Check, ...]) -> str:
    if not failed:
        return DETAILS[Code.VALID]
    first = failed[0]
    if first.code is Code.BANNED and facts.status != Status.BANNED:
        return CUSTOMER_IS_BANNED
    if first.code is Code.HEARTBEAT_DEAD and machine is not None and machines.has_lost_lease(machine, now):
        return LEASE_IS_OVER
    return EXPIRED_AND_USABLE if first.code is Code.EXPIRED and not first.refuses else DETAILS[first.code]


def _next_change(facts: Facts, asked: Asked, now: datetime, first: Check | None) -> datetime | None:
    """The next moment at which the first check that fails becomes another by time alone.

    Any answer changes when the key that found the license ends.
    """
    key_end = facts.key_expires_at if facts.key_expires_at is not None and facts.key_expires_at > now else None
    for at in sorted(at for at in _boundaries(facts) if at > now):
        if key_end is not None and key_end <= at:
            return key_end
        if next((check for check in _checks(facts) if check.fails(facts, asked, at)), None) is not first:
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
    yield from machines.machine_boundaries(facts)
