"""Licenses and their states, and what is allowed from where. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from services.license.periods import check_in_due
from services.license.terms import LENIENT, ExpirationBasis, ExpirationStrategy, Overrides, PolicyLimit, Terms
from shared.rules.expiry import effective_expiry, ended


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
    CHANGE_POLICY = "change_policy"
    TRANSFER = "transfer"
    CHECK_IN = "check_in"
    INCREMENT_USES = "increment_uses"
    DECREMENT_USES = "decrement_uses"
    RESET_USES = "reset_uses"
    UPDATE = "update"
    ROTATE_KEY = "rotate_key"
    DELETE = "delete"


_EVERY_LIVING: Final = (
    Action.CHANGE_TIER, Action.CHANGE_POLICY, Action.TRANSFER, Action.UPDATE, Action.ROTATE_KEY, Action.DECREMENT_USES,
    Action.RESET_USES,
)  # fmt: skip
"""What can be done to a license in any state but the last two, and leaves the state as it is."""

TRANSITIONS: Final[Mapping[tuple[Status, Action], Status]] = MappingProxyType(
    {
        (Status.ACTIVE, Action.SUSPEND): Status.SUSPENDED,
        (Status.ACTIVE, Action.RENEW): Status.ACTIVE,
        (Status.ACTIVE, Action.REVOKE): Status.REVOKED,
        (Status.ACTIVE, Action.BAN): Status.BANNED,
        (Status.ACTIVE, Action.CHECK_IN): Status.ACTIVE,
        (Status.ACTIVE, Action.INCREMENT_USES): Status.ACTIVE,
        (Status.SUSPENDED, Action.REINSTATE): Status.ACTIVE,
        (Status.SUSPENDED, Action.RENEW): Status.SUSPENDED,
        (Status.SUSPENDED, Action.REVOKE): Status.REVOKED,
        (Status.SUSPENDED, Action.BAN): Status.BANNED,
        (Status.EXPIRED, Action.REINSTATE): Status.ACTIVE,
        (Status.EXPIRED, Action.RENEW): Status.ACTIVE,
        (Status.EXPIRED, Action.REVOKE): Status.REVOKED,
        (Status.EXPIRED, Action.BAN): Status.BANNED,
        **{(Status.ACTIVE, action): Status.ACTIVE for action in _EVERY_LIVING},
        **{(Status.SUSPENDED, action): Status.SUSPENDED for action in _EVERY_LIVING},
        **{(Status.EXPIRED, action): Status.ACTIVE for action in _EVERY_LIVING},
    }
)
"""The whole table, from effective status to stored status; a pair that is not here is refused. DELETE is always allowed.
A policy that lets an expired license be used lets it check in and count uses as an active one."""


class Mark(StrEnum):
    """What is worth a look about a license; marks decide nothing."""

    EXPIRING = "EXPIRING"
    IN_GRACE = "IN_GRACE"
    CHECK_IN_OVERDUE = "CHECK_IN_OVERDUE"
    INACTIVE = "INACTIVE"


EXPIRING_WITHIN: Final = timedelta(days=3)
INACTIVE_AFTER: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class License:
    """A license as it is stored, with what it lives under: `terms` and `check_in_since` are its policy's, as they are now.

    Until `expiry_anchored_at` is set, its duration waits for a first validation or use, or counts from its first machine:
    then `expires_at` is what comes of that, and is not stored.
    """

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
    expiry_anchored_at: datetime | None
    check_in_from: datetime | None
    last_check_in_at: datetime | None
    overrides: Overrides
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime
    terms: Terms
    check_in_since: datetime | None = None
    uses: int = 0
    last_validated_at: datetime | None = None
    first_activated_at: datetime | None = None

    def status_at(self, now: datetime) -> Status:
        """The status as it is at `now`: an active license ends in the very instant in which its grace period is over."""
        if self.status is not Status.ACTIVE or not ended(self.expires_at, self.terms.grace_period, now):
            return self.status
        return Status.REVOKED if self.terms.expiration_strategy is ExpirationStrategy.REVOKE else Status.EXPIRED

    def status_in_use_at(self, now: datetime) -> Status:
        """The status, where an expired license that may still be used counts as active."""
        status = self.status_at(now)
        lenient = status is Status.EXPIRED and self.terms.expiration_strategy in LENIENT
        return Status.ACTIVE if lenient else status

    @property
    def awaits_activation(self) -> bool:
        """Whether its duration counts from its first machine on, or will."""
        basis = self.terms.expiration_basis
        return self.expiry_anchored_at is None and basis is ExpirationBasis.FROM_FIRST_ACTIVATION

    @property
    def max_uses(self) -> int | None:
        """How many uses the license has in all; None for unlimited."""
        own = self.overrides.max_uses if PolicyLimit.MAX_USES in self.terms.overridable else None
        return self.terms.max_uses if own is None else own

    @property
    def check_in_due(self) -> datetime | None:
        """When the license must have checked in; None where it need not."""
        if not self.terms.require_check_in or self.terms.check_in_interval is None:
            return None
        start = self.check_in_from or self.starts_at or self.created_at
        interval, count = self.terms.check_in_interval, self.terms.check_in_count
        return check_in_due(interval, count, start, self.check_in_since, self.starts_at)


def counted(license_: License) -> License:
    """The license with the expiry that it has by its first machine; as it is where that has no say."""
    if not license_.awaits_activation:
        return license_
    expires_at = effective_expiry(
        expires_at=None,
        anchored=False,
        expiration_basis=license_.terms.expiration_basis,
        first_duration=license_.terms.first_duration,
        starts_at=license_.starts_at,
        first_activated_at=license_.first_activated_at,
    )
    return replace(license_, expires_at=expires_at)


def marks(license_: License, now: datetime) -> tuple[Mark, ...]:
    """What is worth a look at `now`."""
    found: list[Mark] = []
    if license_.status_at(now) is Status.ACTIVE and license_.expires_at is not None:
        if license_.expires_at <= now:
            found.append(Mark.IN_GRACE)
        elif license_.expires_at - EXPIRING_WITHIN <= now:
            found.append(Mark.EXPIRING)
    due = license_.check_in_due
    if license_.status_in_use_at(now) is Status.ACTIVE and due is not None and due <= now:
        found.append(Mark.CHECK_IN_OVERDUE)
    seen = (license_.created_at, license_.last_validated_at, license_.last_check_in_at)
    if max(at for at in seen if at is not None) <= now - INACTIVE_AFTER:
        found.append(Mark.INACTIVE)
    return tuple(found)
