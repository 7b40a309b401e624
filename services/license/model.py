"""Licenses and their states: what is allowed from where, and what becomes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from shared.errors import DomainError, FieldViolation, Reason, fields_invalid


class Status(StrEnum):
    """The state of a license. EXPIRED is never stored: it is what an active license is past its expiry."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    REVOKED = "revoked"
    BANNED = "banned"


class Action(StrEnum):
    """What can be asked of a license."""

    SUSPEND = "suspend"
    REINSTATE = "reinstate"
    RENEW = "renew"
    REVOKE = "revoke"
    BAN = "ban"
    CHANGE_TIER = "change_tier"
    UPDATE = "update"
    ROTATE_KEY = "rotate_key"
    DELETE = "delete"


TRANSITIONS: Final[Mapping[tuple[Status, Action], Status]] = MappingProxyType(
    {
        (Status.ACTIVE, Action.SUSPEND): Status.SUSPENDED,
        (Status.ACTIVE, Action.RENEW): Status.ACTIVE,
        (Status.ACTIVE, Action.REVOKE): Status.REVOKED,
        (Status.ACTIVE, Action.BAN): Status.BANNED,
        (Status.ACTIVE, Action.CHANGE_TIER): Status.ACTIVE,
        (Status.ACTIVE, Action.UPDATE): Status.ACTIVE,
        (Status.SUSPENDED, Action.REINSTATE): Status.ACTIVE,
        (Status.SUSPENDED, Action.RENEW): Status.SUSPENDED,
        (Status.SUSPENDED, Action.REVOKE): Status.REVOKED,
        (Status.SUSPENDED, Action.BAN): Status.BANNED,
        (Status.SUSPENDED, Action.CHANGE_TIER): Status.SUSPENDED,
        (Status.SUSPENDED, Action.UPDATE): Status.SUSPENDED,
        (Status.EXPIRED, Action.REINSTATE): Status.ACTIVE,
        (Status.EXPIRED, Action.RENEW): Status.ACTIVE,
        (Status.EXPIRED, Action.REVOKE): Status.REVOKED,
        (Status.EXPIRED, Action.BAN): Status.BANNED,
        (Status.EXPIRED, Action.CHANGE_TIER): Status.ACTIVE,
        (Status.EXPIRED, Action.UPDATE): Status.ACTIVE,
        (Status.ACTIVE, Action.ROTATE_KEY): Status.ACTIVE,
        (Status.SUSPENDED, Action.ROTATE_KEY): Status.SUSPENDED,
        (Status.EXPIRED, Action.ROTATE_KEY): Status.ACTIVE,
    }
)
"""The whole table, from effective status to stored status; a pair that is not here is refused. DELETE is always allowed."""


_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The last second of the calendar is left out: the driver takes a datetime's last instant for infinity."""


@dataclass(frozen=True, slots=True)
class License:
    """A license as it is stored."""

    license_id: str
    external_id: str | None
    product_id: str
    policy_id: str
    tier_id: str | None
    customer_id: str | None
    display_name: str
    status: Status
    status_reason: str
    key_hint: str
    starts_at: datetime | None
    expires_at: datetime | None
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime


def effective(status: Status, expires_at: datetime | None, now: datetime) -> Status:
    """The status as it is at `now`; it expires in the very instant of `expires_at`."""
    return Status.EXPIRED if status is Status.ACTIVE and expires_at is not None and now >= expires_at else status


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


def first_expiry(now: datetime, starts_at: datetime | None, duration: timedelta | None) -> datetime | None:
    """When a new license expires by its policy's duration; None for perpetual."""
    return None if duration is None else _add(starts_at or now, duration)


def change_status(license_: License, action: Action, reason: str, now: datetime) -> License:
    """Suspended, revoked or banned."""
    target = refuse_unless_allowed(effective(license_.status, license_.expires_at, now), action)
    return _touched(replace(license_, status=target, status_reason=reason), now)


def reinstate(license_: License, expires_at: datetime | None, now: datetime) -> License:
    """Active again. An expired license needs a new expiry in the future; a suspended one keeps its own."""
    status = effective(license_.status, license_.expires_at, now)
    target = refuse_unless_allowed(status, Action.REINSTATE)
    if status is Status.EXPIRED and (expires_at is None or expires_at <= now):
        raise _bad("expire_time", "MUST_BE_FUTURE", "an expired license needs an expire_time in the future")
    if status is not Status.EXPIRED and expires_at is not None:
        raise _bad("expire_time", "NOT_EXPIRED", "only an expired license takes an expire_time")
    return _touched(
        replace(license_, status=target, status_reason="", expires_at=expires_at or license_.expires_at), now
    )


def renew(license_: License, duration: timedelta | None, now: datetime) -> License:
    """Extended by the policy's duration, from its expiry. A suspended license stays suspended."""
    target = refuse_unless_allowed(effective(license_.status, license_.expires_at, now), Action.RENEW)
    if duration is None or license_.expires_at is None:
        raise DomainError(
            Reason.POLICY_INCOMPATIBLE,
            "a license that never expires, or whose policy has no duration, can't be renewed",
            metadata={"policyId": license_.policy_id},
        )
    return _touched(replace(license_, status=target, expires_at=_add(license_.expires_at, duration)), now)


def update(license_: License, changes: Mapping[str, Any], now: datetime) -> License:
    """With the named fields changed."""
    refuse_unless_allowed(effective(license_.status, license_.expires_at, now), Action.UPDATE)
    changed = replace(license_, **changes)
    refuse_empty_period(changed.starts_at, changed.expires_at)
    return _touched(changed, now)


def rotate_key(license_: License, key_hint: str, now: datetime) -> License:
    """With another key; neither its state nor its period changes."""
    target = refuse_unless_allowed(effective(license_.status, license_.expires_at, now), Action.ROTATE_KEY)
    return _touched(replace(license_, status=target, key_hint=key_hint), now)


def change_tier(license_: License, tier_id: str | None, now: datetime) -> License:
    """With another tier, or with none."""
    refuse_unless_allowed(effective(license_.status, license_.expires_at, now), Action.CHANGE_TIER)
    return _touched(replace(license_, tier_id=tier_id), now)


def refuse_foreign_tier(tier_product_id: str, product_id: str) -> None:
    """FIELD_INVALID where a license would get the tier of another product."""
    if tier_product_id != product_id:
        raise _bad("tier_id", "OTHER_PRODUCT", "the tier belongs to another product")


def refuse_empty_period(starts_at: datetime | None, expires_at: datetime | None) -> None:
    """FIELD_INVALID where a license would expire before it starts."""
    if starts_at is not None and expires_at is not None and expires_at <= starts_at:
        raise _bad("expire_time", "BEFORE_START", "must be after start_time")


def refuse_stale(etag: str, revision: int, resource_id: str) -> None:
    """ETAG_MISMATCH unless the caller's etag, where given, is the resource's."""
    if etag and etag != etag_of(revision):
        raise DomainError(
            Reason.ETAG_MISMATCH, "the resource has changed since its etag was read", metadata={"id": resource_id}
        )


def etag_of(revision: int) -> str:
    return f"r{revision}"


def _touched(license_: License, now: datetime) -> License:
    return replace(license_, revision=license_.revision + 1, updated_at=now)


def _add(start: datetime, duration: timedelta) -> datetime:
    if start >= _END - duration:
        raise _bad("expire_time", "OUT_OF_RANGE", "the expiry would be after the year 9999")
    return start + duration


def _bad(field: str, reason: str, description: str) -> DomainError:
    return fields_invalid((FieldViolation(field, reason, description),))
