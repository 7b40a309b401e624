"""What becomes of a license: one pure function for each thing that can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.license.catalog_model import Policy
from services.license.model import TRANSITIONS, Action, License, Status, counted
from services.license.periods import after, renewed, starts_counting_at_once
from services.license.terms import (
    ExpirationBasis,
    TransferStrategy,
    refuse_not_overridable,
)
from shared.errors import DomainError, FieldViolation, Reason, fields_invalid


def refuse_unless_allowed(status: Status, action: Action) -> Status:
    """The stored status that `action` leads to; STATE_TRANSITION_INVALID where the table has no such pair."""
    target = TRANSITIONS.get((status, action))
    if target is None:
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            f"cannot {action} a license that is {status}",
            metadata={"from": status.value, "action": action.value},
        )
    return target


def change_status(license_: License, action: Action, reason: str, now: datetime) -> License:
    """Suspended, revoked or banned."""
    target = refuse_unless_allowed(license_.status_at(now), action)
    return _touched(replace(license_, status=target, status_reason=reason), now)


def reinstate(license_: License, expires_at: datetime | None, now: datetime) -> License:
    """Active again. An expired license needs a new expiry in the future; a suspended one keeps its own."""
    status = license_.status_at(now)
    target = refuse_unless_allowed(status, Action.REINSTATE)
    if status is Status.EXPIRED and (expires_at is None or expires_at <= now):
        raise _bad("expire_time", "MUST_BE_FUTURE", "an expired license needs an expire_time in the future")
    if status is not Status.EXPIRED and expires_at is not None:
        raise _bad("expire_time", "NOT_EXPIRED", "only an expired license takes an expire_time")
    if expires_at is None:
        return _touched(replace(license_, status=target, status_reason=""), now)
    renewed_at = license_.expiry_anchored_at or now
    return _touched(
        replace(license_, status=target, status_reason="", expires_at=expires_at, expiry_anchored_at=renewed_at), now
    )


def renew(license_: License, now: datetime) -> License:
    """Extended by its policy's duration and renewal basis, from no earlier than its start. A suspended one stays suspended.

    What counted from its first machine is set from then on."""
    target = refuse_unless_allowed(license_.status_at(now), Action.RENEW)
    duration = license_.terms.duration
    if duration is None or license_.expires_at is None:
        raise DomainError(
            Reason.POLICY_INCOMPATIBLE,
            "a license without an expiry, or whose policy has no duration, can't be renewed",
            metadata={"policyId": license_.policy_id},
        )
    expires_at = renewed(license_.terms, license_.expires_at, duration, max(now, license_.starts_at or now))
    return _touched(replace(kept(license_, now), status=target, expires_at=expires_at), now)


def update(license_: License, changes: Mapping[str, Any], now: datetime) -> License:
    """With the named fields changed."""
    refuse_unless_allowed(license_.status_at(now), Action.UPDATE)
    changed = replace(license_, **changes)
    if "expires_at" in changes and changed.expiry_anchored_at is None:
        changed = replace(changed, expiry_anchored_at=now)
    changed = counted(changed)
    refuse_empty_period(changed.starts_at, changed.expires_at)
    if "overrides" in changes:
        refuse_not_overridable(changed.overrides, changed.terms, changed.policy_id)
    return _touched(changed, now)


def rotate_key(license_: License, key_hint: str, now: datetime) -> License:
    """With another key; neither its state nor its period changes."""
    target = refuse_unless_allowed(license_.status_at(now), Action.ROTATE_KEY)
    return _touched(replace(license_, status=target, key_hint=key_hint), now)


def change_tier(license_: License, tier_id: str | None, now: datetime) -> License:
    """With another tier, or with none."""
    refuse_unless_allowed(license_.status_at(now), Action.CHANGE_TIER)
    return _touched(replace(license_, tier_id=tier_id), now)


def transfer(license_: License, customer_id: str | None, now: datetime) -> License:
    """With another holder, or with none."""
    refuse_unless_allowed(license_.status_at(now), Action.TRANSFER)
    return _touched(replace(license_, customer_id=customer_id), now)


def change_policy(license_: License, policy: Policy, now: datetime) -> License:
    """Under another policy of the same product. POLICY_INCOMPATIBLE where it is of another."""
    refuse_unless_allowed(license_.status_at(now), Action.CHANGE_POLICY)
    if policy.product_id != license_.product_id:
        raise DomainError(
            Reason.POLICY_INCOMPATIBLE, "the policy belongs to another product", metadata={"policyId": policy.policy_id}
        )
    begins = policy.terms.require_check_in and not license_.terms.require_check_in
    moved = replace(
        kept(license_, now),
        policy_id=policy.policy_id,
        terms=policy.terms,
        check_in_since=policy.check_in_since,
        check_in_from=now if begins else license_.check_in_from,
    )
    if policy.terms.transfer_strategy is TransferStrategy.RESET_EXPIRY:
        moved = replace(moved, expires_at=None, expiry_anchored_at=None)
    begun = moved.awaits_activation and moved.first_activated_at is not None
    if moved.expiry_anchored_at is None and (begun or starts_counting_at_once(policy.terms)):
        moved = anchored(moved, now)
    return _touched(moved, now)


def anchored(license_: License, now: datetime) -> License:
    """The license with its duration counting from `now`, or from its start where that is later; as it is where it does."""
    if license_.expiry_anchored_at is not None:
        return license_
    duration = license_.terms.first_duration
    start = max(now, license_.starts_at or now)
    return replace(license_, expires_at=None if duration is None else after(start, duration), expiry_anchored_at=now)


def kept(license_: License, now: datetime) -> License:
    """The license with its expiry set, where it counts from its first machine; as it is where none counts yet."""
    if license_.awaits_activation and license_.expires_at is not None:
        return replace(license_, expiry_anchored_at=now)
    return license_


def anchored_by(license_: License, basis: ExpirationBasis, now: datetime) -> License:
    """The license, anchored where its policy's duration counts from what has just happened."""
    if license_.expiry_anchored_at is not None or license_.terms.expiration_basis is not basis:
        return license_
    return _touched(anchored(license_, now), now)


def check_in(license_: License, now: datetime) -> License:
    """Checked in. POLICY_INCOMPATIBLE where its policy does not ask for it."""
    refuse_unless_allowed(license_.status_in_use_at(now), Action.CHECK_IN)
    if not license_.terms.require_check_in:
        raise DomainError(
            Reason.POLICY_INCOMPATIBLE,
            "the policy does not require check-ins",
            metadata={"policyId": license_.policy_id},
        )
    return _touched(replace(license_, last_check_in_at=now, check_in_from=now), now)


def count_uses(license_: License, action: Action, uses: int, now: datetime) -> License:
    """With uses counted, given back or counted from 0: all of them, or INSUFFICIENT_USAGE. Uses are no revision."""
    using = action is Action.INCREMENT_USES
    refuse_unless_allowed(license_.status_in_use_at(now) if using else license_.status_at(now), action)
    match action:
        case Action.INCREMENT_USES:
            limit = license_.max_uses
            if limit is not None and license_.uses + uses > limit:
                raise _insufficient(license_, uses, max(0, limit - license_.uses), "left")
            return replace(license_, uses=license_.uses + uses)
        case Action.DECREMENT_USES:
            if uses > license_.uses:
                raise _insufficient(license_, uses, license_.uses, "counted")
            return replace(license_, uses=license_.uses - uses)
        case Action.RESET_USES:
            return replace(license_, uses=0)
        case _:
            raise ValueError(f"{action} is not about uses")


def _insufficient(license_: License, asked: int, available: int, what: str) -> DomainError:
    return DomainError(
        Reason.INSUFFICIENT_USAGE,
        f"{asked} uses were asked for, and {available} are {what}",
        metadata={"id": license_.license_id, "asked": str(asked), "available": str(available)},
    )


def refuse_foreign_tier(tier_product_id: str, product_id: str) -> None:
    """FIELD_INVALID where a license would get the tier of another product."""
    if tier_product_id != product_id:
        raise _bad("tier_id", "OTHER_PRODUCT", "the tier belongs to another product")


def refuse_empty_period(starts_at: datetime | None, expires_at: datetime | None) -> None:
    """FIELD_INVALID where a license would expire before it starts."""
    if starts_at is not None and expires_at is not None and expires_at <= starts_at:
        raise _bad("expire_time", "BEFORE_START", "must be after start_time")


def _touched(license_: License, now: datetime) -> License:
    return replace(license_, revision=license_.revision + 1, updated_at=now)


def _bad(field: str, reason: str, description: str) -> DomainError:
    return fields_invalid((FieldViolation(field, reason, description),))
