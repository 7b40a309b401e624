"""Keys that sign what software verifies by itself: their states, and which of them signs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.errors import DomainError, Reason

MAX_PUBLICATION_LEAD: Final = timedelta(days=30)


class KeyStatus(StrEnum):
    """The state of a signing key."""

    PENDING = "PENDING"
    """Published, and not signing yet."""
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"
    """Published for what it has signed; its private half is gone."""
    REVOKED = "REVOKED"
    """Published no more: what it has signed is worth nothing."""


class KeyAction(StrEnum):
    """What can be asked of a signing key."""

    ACTIVATE = "activate"
    RETIRE = "retire"
    REVOKE = "revoke"


class KeyPurpose(StrEnum):
    """What a key signs."""

    FILE = "FILE"


class KeyAlgorithm(StrEnum):
    """How it signs."""

    ED25519 = "ED25519"


TRANSITIONS: Final[Mapping[tuple[KeyStatus, KeyAction], KeyStatus]] = MappingProxyType(
    {
        (KeyStatus.PENDING, KeyAction.ACTIVATE): KeyStatus.ACTIVE,
        (KeyStatus.ACTIVE, KeyAction.RETIRE): KeyStatus.RETIRED,
        (KeyStatus.PENDING, KeyAction.REVOKE): KeyStatus.REVOKED,
        (KeyStatus.ACTIVE, KeyAction.REVOKE): KeyStatus.REVOKED,
        (KeyStatus.RETIRED, KeyAction.REVOKE): KeyStatus.REVOKED,
    }
)
"""The whole table; a pair that is not here is refused."""

SIGNS_SOMETIME: Final = frozenset({KeyStatus.PENDING, KeyStatus.ACTIVE})
"""The states in which the private half is there."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key without its private half. `signing_key_id` is the `kid` of what it signs."""

    signing_key_id: str
    product_id: str
    purpose: KeyPurpose
    alg: KeyAlgorithm
    status: KeyStatus
    public_jwk: Mapping[str, str]
    """What RFC 7517 says of the key itself: `kty`, `crv`, `x`."""
    activates_at: datetime
    retired_at: datetime | None
    revoked_at: datetime | None
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of a product, as everybody may find them. `revocation_epoch` counts the keys that were revoked."""

    product_id: str
    key_set_id: str
    revocation_epoch: int
    created_at: datetime


def change(key: SigningKey, action: KeyAction, now: datetime) -> SigningKey:
    """The key after an action. STATE_TRANSITION_INVALID where the table has no such pair."""
    target = TRANSITIONS.get((key.status, action))
    if target is None:
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            f"cannot {action} a signing key that is {key.status}",
            metadata={"from": key.status.value, "action": action.value},
        )
    return replace(
        key,
        status=target,
        retired_at=now if target is KeyStatus.RETIRED else key.retired_at,
        revoked_at=now if target is KeyStatus.REVOKED else key.revoked_at,
        revision=key.revision + 1,
        updated_at=now,
    )


@dataclass(frozen=True, slots=True)
class Living:
    """The keys of one purpose that sign, or will."""

    active: SigningKey | None
    pending: SigningKey | None

    @classmethod
    def of(cls, keys: Iterable[SigningKey]) -> Living:
        """Of a product's keys of one purpose, in any order."""
        by_status = {key.status: key for key in keys}
        return cls(by_status.get(KeyStatus.ACTIVE), by_status.get(KeyStatus.PENDING))

    def signer(self, now: datetime) -> SigningKey | None:
        """The key that signs now; None where one is to be made.

        One that waits takes over in its time, or at once where no other is left: it is published already."""
        waits = self.pending is not None and self.active is not None and now < self.pending.activates_at
        return self.active if self.pending is None or waits else self.pending


def refuse_second_pending(living: Living) -> None:
    """STATE_TRANSITION_INVALID where a key waits already: it can be revoked, or waited for."""
    if living.pending is not None:
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            f"{living.pending.signing_key_id} waits to take over already: wait for it, or revoke it",
            metadata={"from": KeyStatus.PENDING.value, "action": "rotate"},
        )
