"""Customers, and what a ban of one means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from shared.errors import DomainError, FieldViolation, Reason, fields_invalid


class CustomerStatus(StrEnum):
    """Whether a customer's licenses may be used at all."""

    ACTIVE = "active"
    BANNED = "banned"


class CustomerAction(StrEnum):
    """What changes that."""

    BAN = "ban"
    UNBAN = "unban"


CUSTOMER_TRANSITIONS: Final[Mapping[tuple[CustomerStatus, CustomerAction], CustomerStatus]] = MappingProxyType(
    {
        (CustomerStatus.ACTIVE, CustomerAction.BAN): CustomerStatus.BANNED,
        (CustomerStatus.BANNED, CustomerAction.UNBAN): CustomerStatus.ACTIVE,
    }
)


@dataclass(frozen=True, slots=True)
class Customer:
    """Who holds licenses: named by email, by the caller's own subject_ref, or both. An email is in lower case."""

    customer_id: str
    email: str | None
    subject_ref: str | None
    display_name: str
    banned_at: datetime | None
    ban_reason: str
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime

    @property
    def status(self) -> CustomerStatus:
        return CustomerStatus.ACTIVE if self.banned_at is None else CustomerStatus.BANNED


def change_ban(customer: Customer, action: CustomerAction, reason: str, now: datetime) -> Customer:
    """Banned, or no longer. STATE_TRANSITION_INVALID where it is so already."""
    target = CUSTOMER_TRANSITIONS.get((customer.status, action))
    if target is None:
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            f"cannot {action} a customer that is {customer.status}",
            metadata={"from": customer.status.value, "action": action.value},
        )
    banned = target is CustomerStatus.BANNED
    changed = replace(customer, banned_at=now if banned else None, ban_reason=reason if banned else "")
    return _touched(changed, now)


def update(customer: Customer, changes: Mapping[str, Any], now: datetime) -> Customer:
    """With the named fields changed. FIELD_INVALID where neither email nor subject_ref would be left."""
    changed = replace(customer, **changes)
    if changed.email is None and changed.subject_ref is None:
        violations = (
            FieldViolation(field, "REQUIRED", "email and subject_ref can't both be empty")
            for field in ("email", "subject_ref")
            if field in changes
        )
        raise fields_invalid(tuple(violations))
    return _touched(changed, now)


def refuse_banned(customer: Customer) -> None:
    """CUSTOMER_BANNED where a license would be issued to a banned customer."""
    if customer.status is CustomerStatus.BANNED:
        raise DomainError(
            Reason.CUSTOMER_BANNED, "the customer is banned", metadata={"customerId": customer.customer_id}
        )


def _touched(customer: Customer, now: datetime) -> Customer:
    return replace(customer, revision=customer.revision + 1, updated_at=now)
