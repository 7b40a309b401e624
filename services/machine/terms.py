"""What a license says of its machines, as the license service publishes it, and what follows from that. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

from shared.errors import DomainError, Reason
from shared.rules.expiry import effective_expiry, ended, grace_end
from shared.rules.fingerprints import MatchingRule
from shared.rules.heartbeats import HeartbeatBasis, HeartbeatCull, HeartbeatResurrection
from shared.rules.machine_terms import (
    ComponentUniqueness,
    MachineLeasing,
    MachineUniqueness,
    ProcessLeasing,
    SeatAcquire,
)
from shared.rules.seats import OverageStrategy, effective_limit

_ENDS: Final = {"REVOKE": "revoked", "RESTRICT_ACCESS": "expired"}
"""Strategies by which an expired license can't be used, and what its status is then."""
LIMITS: Final = ("max_machines", "max_users", "max_cores", "max_memory_bytes", "max_disk_bytes", "max_processes")
"""The limits, by the names of the policy's fields."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A row of license.activation_terms, by the names of its columns."""

    license_id: str
    product_id: str
    product_slug: str
    policy_id: str
    customer_id: str | None
    customer_banned: bool
    status: str
    starts_at: datetime | None
    expires_at: datetime | None
    expiry_anchored_at: datetime | None
    first_duration: timedelta | None
    expiration_basis: str
    expiration_strategy: str
    grace_period: timedelta
    max_machines: int | None
    max_machines_override: int | None
    max_users: int | None
    max_users_override: int | None
    max_cores: int | None
    max_cores_override: int | None
    max_memory_bytes: int | None
    max_memory_bytes_override: int | None
    max_disk_bytes: int | None
    max_disk_bytes_override: int | None
    max_processes: int | None
    max_processes_override: int | None
    offline_max_ttl: timedelta
    offline_max_ttl_override: timedelta | None
    overridable: Sequence[str]
    strict: bool
    overage_strategy: OverageStrategy
    floating: bool
    machine_uniqueness: MachineUniqueness
    machine_matching: MatchingRule
    component_uniqueness: ComponentUniqueness
    component_matching: MatchingRule
    machine_leasing: MachineLeasing
    process_leasing: ProcessLeasing
    seat_acquire: SeatAcquire
    require_heartbeat: bool
    heartbeat_interval: timedelta
    heartbeat_basis: HeartbeatBasis
    heartbeat_cull: HeartbeatCull
    heartbeat_resurrection: HeartbeatResurrection
    allow_machine_transfer: bool
    max_transfers: int | None
    transfer_period: timedelta
    offline_allowed: bool
    protected: bool
    authentication: str

    def limit(self, name: str) -> int | None:
        """One of `LIMITS`, the license's own where its policy lets it have one; None for any number."""
        return effective_limit(getattr(self, name), getattr(self, f"{name}_override"), self.overridable, name.upper())

    def scope_of(self, uniqueness: MachineUniqueness | ComponentUniqueness, account_id: str, machine_id: str) -> str:
        """The id of what a fingerprint is unique in."""
        match unique := ComponentUniqueness(uniqueness.value):
            case ComponentUniqueness.UNIQUE_PER_MACHINE:
                return machine_id
            case ComponentUniqueness.UNIQUE_PER_LICENSE:
                return self.license_id
            case ComponentUniqueness.UNIQUE_PER_POLICY:
                return self.policy_id
            case ComponentUniqueness.UNIQUE_PER_PRODUCT:
                return self.product_id
            case ComponentUniqueness.UNIQUE_PER_ACCOUNT:
                return account_id
            case _:
                assert_never(unique)

    def status_at(self, now: datetime, first_activated_at: datetime | None) -> str:
        """The license's status at `now`; one that may be used though it has expired counts as active."""
        if self.status != "active":
            return self.status
        expires_at = self._expires_at(first_activated_at)
        if not ended(expires_at, self.grace_period, now):
            return "not_started" if self.starts_at is not None and now < self.starts_at else "active"
        return _ENDS.get(self.expiration_strategy, "active")

    def ends_at(self, first_activated_at: datetime | None) -> datetime | None:
        """When the license can't be used any more for having expired; None for never."""
        if self.expiration_strategy not in _ENDS:
            return None
        expires_at = self._expires_at(first_activated_at)
        return grace_end(expires_at, self.grace_period) or expires_at

    def _expires_at(self, first_activated_at: datetime | None) -> datetime | None:
        return effective_expiry(
            expires_at=self.expires_at,
            anchored=self.expiry_anchored_at is not None,
            expiration_basis=self.expiration_basis,
            first_activated_at=first_activated_at,
            starts_at=self.starts_at,
            first_duration=self.first_duration,
        )


def refuse_unusable(terms: Terms, action: str, now: datetime, first_activated_at: datetime | None) -> None:
    """CUSTOMER_BANNED, and STATE_TRANSITION_INVALID for a license that nobody may use at `now`."""
    if terms.customer_banned:
        raise DomainError(
            Reason.CUSTOMER_BANNED,
            "the customer who holds the license is banned",
            metadata={"customerId": terms.customer_id or ""},
        )
    status = terms.status_at(now, first_activated_at)
    if status != "active":
        raise DomainError(
            Reason.STATE_TRANSITION_INVALID,
            f"cannot {action} a machine under a license that is {status}",
            metadata={"id": terms.license_id, "from": status, "action": action},
        )
