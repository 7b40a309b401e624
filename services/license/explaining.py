"""How a verdict came about: every check, what it looked at, how it ended, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from services.license.asked import Asked
from services.license.codes import Code
from services.license.decision import CHECKS, Check
from services.license.explaining_machines import HINTS, machine_inputs
from services.license.facts import Facts, next_check_in, uses_limit
from shared.rules.expiry import grace_end


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    TOLD = "TOLD"


@dataclass(frozen=True, slots=True)
class Explained:
    """One check. `inputs` are names of fields and their values."""

    name: str
    code: Code
    outcome: Outcome
    inputs: Mapping[str, str]
    hint: str


_Inputs = Callable[[Facts, Asked], Mapping[str, object]]

_READS: Final[Mapping[str, _Inputs]] = {
    "banned": lambda facts, asked: {"status": facts.status, "customer_banned": facts.customer_banned},
    "revoked": lambda facts, asked: {"status": facts.status, **_expiry(facts)},
    "suspended": lambda facts, asked: {"status": facts.status},
    "started": lambda facts, asked: {"start_time": facts.starts_at},
    "expired": lambda facts, asked: _expiry(facts),
    "check_in": lambda facts, asked: {
        "require_check_in": facts.require_check_in, "check_in_due_time": next_check_in(facts),
    },
    "product_named": lambda facts, asked: {
        "require_product_scope": facts.require_product_scope, "asked": asked.product,
    },
    "product": lambda facts, asked: {
        "asked": asked.product, "product_id": facts.product_id, "code": facts.product_code,
    },
    "policy_named": lambda facts, asked: {
        "require_policy_scope": facts.require_policy_scope, "asked": asked.policy_id,
    },
    "policy": lambda facts, asked: {"asked": asked.policy_id, "policy_id": facts.policy_id},
    "tier": lambda facts, asked: {
        "asked": asked.required_tier, "asked_position": facts.tiers.get(asked.required_tier), "tier": facts.tier,
        "position": facts.tier_position,
    },
    "user_named": lambda facts, asked: {
        "require_user_scope": facts.require_user_scope, "asked": asked.user is not None,
    },
    "user": lambda facts, asked: {
        "asked": "" if asked.user is None else asked.user.customer_id or asked.user.subject_ref or "an email",
        "customer_id": facts.customer_id,
    },
    "entitlements_named": lambda facts, asked: {
        "asked": None if asked.entitlements is None else len(asked.entitlements),
    },
    "entitlements": lambda facts, asked: {"asked": ", ".join(asked.entitlements or ())},
    "uses": lambda facts, asked: {
        "uses": facts.uses, "max_uses": facts.max_uses, "max_uses_override": facts.max_uses_override,
        "counts": uses_limit(facts),
    },
    "grace": lambda facts, asked: _expiry(facts),
    "expired_and_usable": lambda facts, asked: _expiry(facts),
}  # fmt: skip
"""What each check reads, by its name."""

_HINTS: Final[Mapping[str, str]] = {
    "banned": "A ban of the license is for good; unban the customer where it is the customer's.",
    "revoked": "This is for good: issue another license.",
    "suspended": "Reinstate the license.",
    "started": "Wait for start_time, or update it.",
    "expired": "Renew the license, or reinstate it with a later expire_time.",
    "check_in": "Check the license in.",
    "product_named": "Name the product in the request, or take require_product_scope from the policy.",
    "product": "Ask for the license's own product, or take a license of the product.",
    "policy_named": "Name the policy in the request, or take require_policy_scope from the policy.",
    "policy": "Ask for the license's own policy, or change the license's policy.",
    "tier": "Change the license's tier, or ask for a lower one; a tier that the product lacks is met by none.",
    "user_named": "Name the user in the request, or take require_user_scope from the policy.",
    "user": "Ask for the customer who holds the license, or transfer it.",
    "entitlements_named": "Name the entitlements, or leave the field out.",
    "entitlements": "Features cannot be attached yet: leave the field out.",
    "uses": "Reset or give back uses, raise max_uses, or override it.",
    "grace": "Renew the license before its grace period ends.",
    "expired_and_usable": "Renew the license where it should not stay expired.",
}
"""What to do about each check that does not pass, by its name."""


def explain(facts: Facts | None, asked: Asked, now: datetime) -> Sequence[Explained]:
    """Every check in its order; of no license the one check that there is one."""
    if facts is None:
        return (
            Explained(
                "found", Code.NOT_FOUND, Outcome.FAILED, {}, "Check the key, and the account and mode of the caller."
            ),
        )
    return tuple(_explained(check, facts, asked, now) for check in CHECKS)


def _explained(check: Check, facts: Facts, asked: Asked, now: datetime) -> Explained:
    read = machine_inputs(check, facts, asked, now) if check.name in HINTS else _READS[check.name](facts, asked)
    inputs = {name: _word(value) for name, value in read.items()}
    inputs["now"] = _word(now)
    if not check.fails(facts, asked, now):
        return Explained(check.name, check.code, Outcome.PASSED, inputs, "")
    outcome = Outcome.FAILED if check.refuses_for(facts) else Outcome.TOLD
    return Explained(check.name, check.code, outcome, inputs, HINTS.get(check.name) or _HINTS[check.name])


def _expiry(facts: Facts) -> Mapping[str, object]:
    return {
        "expire_time": facts.expires_at,
        "grace_end_time": grace_end(facts.expires_at, facts.grace_period),
        "expiration_strategy": facts.expiration_strategy,
    }


def _word(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value).lower() if isinstance(value, bool) else str(value)
