"""License and machine files: whether one may be had, for how long, and what it says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from services.license.catalog_model import Product, Tier
from services.license.model import License, Status
from services.license.signing_key_model import KeyStatus
from services.license.terms import LENIENT, PolicyLimit
from shared.errors import DomainError, FieldViolation, Reason, fields_invalid
from shared.rules.expiry import grace_end, later

MIN_TTL: Final = timedelta(hours=1)
MAX_TTL: Final = timedelta(days=90)
ACTION: Final = "check_out"


class FileStatus(StrEnum):
    """What became of a file that was issued, as far as the service knows: nobody calls a file back."""

    ISSUED = "ISSUED"
    SUPERSEDED = "SUPERSEDED"
    """The license has a newer one."""
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    """Its license was ended for good, or its key was revoked; copies are good until they expire, or learn of that."""


@dataclass(frozen=True, slots=True)
class LicenseFile:
    """A license file that was issued. `bound` to a fingerprint, `encrypted` with the license key."""

    license_file_id: str
    license_id: str
    seq: int
    signing_key_id: str
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    encrypted: bool
    bound: bool

    def status_at(self, now: datetime, newest_seq: int, key: KeyStatus | None, license_status: Status) -> FileStatus:
        """What it is now, by the newest file of the license, its key (None where that is gone) and the license itself."""
        if key in {None, KeyStatus.REVOKED} or license_status in {Status.REVOKED, Status.BANNED}:
            return FileStatus.REVOKED
        if now >= self.expires_at:
            return FileStatus.EXPIRED
        return FileStatus.SUPERSEDED if self.seq < newest_seq else FileStatus.ISSUED


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when a file is good."""

    not_before: datetime
    expires_at: datetime


def most_ttl(license_: License) -> timedelta:
    """For how long files of a license may be good: the policy's word, or the license's own where that may override it."""
    own = license_.overrides.offline_max_ttl if PolicyLimit.OFFLINE_MAX_TTL in license_.terms.overridable else None
    return license_.terms.offline_max_ttl if own is None else own


def refuse_unless_allowed(license_: License, now: datetime) -> None:
    """OFFLINE_NOT_ALLOWED by the policy; STATE_TRANSITION_INVALID for a license that may not be used now."""
    status = license_.status_in_use_at(now)
    if status is not Status.ACTIVE:
        raise _state(status.value, f"a license that is {status}")
    if not license_.terms.offline_allowed:
        raise DomainError(
            Reason.OFFLINE_NOT_ALLOWED,
            "the license's policy does not allow files for offline use",
            metadata={"policyId": license_.policy_id},
        )
    due = license_.check_in_due
    if due is not None and due <= now:
        raise _state("check_in_overdue", "a license whose check-in is overdue")


def span(license_: License, ttl: timedelta | None, now: datetime) -> Span:
    """The time of a new file: `ttl`, or the most where None, and never past what ends the license by itself.

    FIELD_INVALID with TTL_OUT_OF_RANGE.
    """
    most = most_ttl(license_)
    if ttl is not None and not MIN_TTL <= ttl <= most:
        raise _bad_ttl(f"must be 1 hour to {_words(most)}, by the license's policy")
    ends = [now + (most if ttl is None else ttl), *_ends(license_, now)]
    found = Span(max(now, license_.starts_at or now), min(ends))
    if found.expires_at <= found.not_before:
        raise _bad_ttl("the license starts after the file would have ended")
    return found


def _ends(license_: License, now: datetime) -> list[datetime]:
    """When a license cannot be used any more: it has expired, grace included, or has not checked in."""
    terms, found = license_.terms, [license_.check_in_due]
    if terms.expiration_strategy not in LENIENT:
        expires_at = license_.expires_at
        if expires_at is None and license_.expiry_anchored_at is None and terms.first_duration is not None:
            # Its duration waits for something. No file is good for longer than if that were now.
            expires_at = later(max(now, license_.starts_at or now), terms.first_duration)
        found.append(grace_end(expires_at, terms.grace_period) or expires_at)
    return [end for end in found if end is not None]


def payload_of_license(license_: License, product: Product, tier: Tier | None) -> dict[str, Any]:
    """What a file says of its license: ids, its period, and the terms that matter where nobody can be asked."""
    terms = license_.terms
    return {
        "aud": product.slug,
        "features": [],
        "license": {
            "license_id": license_.license_id,
            "product_id": license_.product_id,
            "policy_id": license_.policy_id,
            "customer_id": license_.customer_id,
            "starts_at": license_.starts_at,
            "expires_at": license_.expires_at,
            "grace_end": grace_end(license_.expires_at, terms.grace_period),
            "tier": None if tier is None else {"tier_id": tier.tier_id, "slug": tier.slug},
        },
        "policy": {
            "expiration_strategy": terms.expiration_strategy.value,
            "floating": terms.floating,
            "grace_period_s": int(terms.grace_period.total_seconds()),
            "is_trial": terms.is_trial,
            "max_machines": terms.max_machines,
            "max_uses": license_.max_uses,
            "require_fingerprint": terms.require_fingerprint,
        },
    }


def times_written(value: Any, write: Any) -> Any:
    """A payload with its times as text."""
    if isinstance(value, datetime):
        return write(value)
    if isinstance(value, Mapping):
        return {name: times_written(part, write) for name, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value


def _state(state: str, what: str) -> DomainError:
    return DomainError(
        Reason.STATE_TRANSITION_INVALID,
        f"cannot issue a file for {what}",
        metadata={"from": state, "action": ACTION},
    )


def _bad_ttl(words: str) -> DomainError:
    return fields_invalid((FieldViolation("ttl", "TTL_OUT_OF_RANGE", words),))


def _words(span_: timedelta) -> str:
    hours = span_ / timedelta(hours=1)
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"
