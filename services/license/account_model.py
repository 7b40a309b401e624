"""Accounts and API keys. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.errors import DomainError, Reason
from shared.rules.limits import Limits


class AccountStatus(StrEnum):
    """Whether an account works."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class AccountAction(StrEnum):
    """What an operator can do to an account."""

    SUSPEND = "suspend"
    REINSTATE = "reinstate"


ACCOUNT_TRANSITIONS: Final[Mapping[tuple[AccountStatus, AccountAction], AccountStatus]] = MappingProxyType(
    {
        (AccountStatus.ACTIVE, AccountAction.SUSPEND): AccountStatus.SUSPENDED,
        (AccountStatus.SUSPENDED, AccountAction.REINSTATE): AccountStatus.ACTIVE,
    }
)


@dataclass(frozen=True, slots=True)
class Account:
    """A vendor."""

    account_id: str
    external_id: str | None
    display_name: str
    status: AccountStatus
    revision: int
    created_at: datetime
    updated_at: datetime
    limits: Limits = field(default_factory=dict[str, int])
    """Those that are set; see `shared.rules.limits`."""


class KeyKind(StrEnum):
    """Where an API key may be kept."""

    SECRET = "SECRET"
    PUBLISHABLE = "PUBLISHABLE"


class KeyStatus(StrEnum):
    """Whether an API key works."""

    ACTIVE = "active"
    ROTATING = "rotating"
    EXPIRED = "expired"
    REVOKED = "revoked"


class KeyAction(StrEnum):
    """What can be done to an API key."""

    ROTATE = "rotate"
    REVOKE = "revoke"


KEY_ACTIONS: Final = frozenset(
    {
        (KeyStatus.ACTIVE, KeyAction.ROTATE),
        (KeyStatus.ACTIVE, KeyAction.REVOKE),
        (KeyStatus.ROTATING, KeyAction.REVOKE),
        (KeyStatus.EXPIRED, KeyAction.REVOKE),
    }
)
"""What is allowed from where; everything else is refused."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key's record; the key itself is nowhere, only its hash in the table."""

    api_key_id: str
    external_id: str | None
    display_name: str
    scopes: tuple[str, ...]
    hint: str
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by_id: str | None
    revision: int
    created_at: datetime
    updated_at: datetime
    kind: KeyKind

    def status(self, now: datetime) -> KeyStatus:
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return KeyStatus.EXPIRED
        return KeyStatus.ROTATING if self.replaced_by_id is not None else KeyStatus.ACTIVE


def next_account_status(status: AccountStatus, action: AccountAction) -> AccountStatus:
    """The status after `action`; STATE_TRANSITION_INVALID where the table has no such pair."""
    target = ACCOUNT_TRANSITIONS.get((status, action))
    if target is None:
        raise _refused("account", status.value, action.value)
    return target


def refuse_key_action(status: KeyStatus, action: KeyAction) -> None:
    """STATE_TRANSITION_INVALID where the key's state does not allow `action`."""
    if (status, action) not in KEY_ACTIONS:
        raise _refused("API key", status.value, action.value)


def _refused(noun: str, status: str, action: str) -> DomainError:
    return DomainError(
        Reason.STATE_TRANSITION_INVALID,
        f"cannot {action} an {noun} that is {status}",
        metadata={"from": status, "action": action},
    )
