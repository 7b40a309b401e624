"""The terms of a policy, which its licenses live under, and the templates that fill them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.errors import DomainError, Reason
from shared.rules.expiry import FROM_FIRST_ACTIVATION
from shared.rules.fingerprints import MatchingRule
from shared.rules.heartbeats import HeartbeatBasis, HeartbeatCull, HeartbeatResurrection
from shared.rules.machine_terms import (
    ComponentUniqueness,
    MachineLeasing,
    MachineUniqueness,
    ProcessLeasing,
    SeatAcquire,
)
from shared.rules.seats import OverageStrategy


class ExpirationStrategy(StrEnum):
    """What becomes of a license past its expiry and grace period."""

    RESTRICT_ACCESS = "RESTRICT_ACCESS"
    REVOKE = "REVOKE"
    MAINTAIN_ACCESS = "MAINTAIN_ACCESS"
    ALLOW_ACCESS = "ALLOW_ACCESS"


LENIENT: Final = frozenset({ExpirationStrategy.MAINTAIN_ACCESS, ExpirationStrategy.ALLOW_ACCESS})
"""The strategies that let an expired license be used."""


class ExpirationBasis(StrEnum):
    """From when on a license's duration counts."""

    FROM_CREATION = "FROM_CREATION"
    FROM_FIRST_VALIDATION = "FROM_FIRST_VALIDATION"
    FROM_FIRST_USE = "FROM_FIRST_USE"
    FROM_FIRST_ACTIVATION = FROM_FIRST_ACTIVATION


class RenewalBasis(StrEnum):
    """What a renewal adds the duration to."""

    FROM_EXPIRY = "FROM_EXPIRY"
    FROM_NOW = "FROM_NOW"
    FROM_NOW_IF_EXPIRED = "FROM_NOW_IF_EXPIRED"


class TransferStrategy(StrEnum):
    """What becomes of the expiry of a license that comes under the policy."""

    KEEP_EXPIRY = "KEEP_EXPIRY"
    RESET_EXPIRY = "RESET_EXPIRY"


class UsesCounting(StrEnum):
    """What counts as a use."""

    EXPLICIT = "EXPLICIT"
    VALIDATION = "VALIDATION"


class CheckInInterval(StrEnum):
    """The unit in which check-ins are due."""

    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"
    YEAR = "YEAR"


class Authentication(StrEnum):
    """With what the software under a license may prove it."""

    LICENSE = "LICENSE"
    TOKEN = "TOKEN"
    MIXED = "MIXED"
    NONE = "NONE"


class PolicyLimit(StrEnum):
    """A limit that licenses may override, where their policy says so."""

    MAX_MACHINES = "MAX_MACHINES"
    MAX_USES = "MAX_USES"
    OFFLINE_MAX_TTL = "OFFLINE_MAX_TTL"
    MAX_USERS = "MAX_USERS"
    MAX_CORES = "MAX_CORES"
    MAX_MEMORY_BYTES = "MAX_MEMORY_BYTES"
    MAX_DISK_BYTES = "MAX_DISK_BYTES"
    MAX_PROCESSES = "MAX_PROCESSES"


WORDS: Final[Mapping[str, type[StrEnum]]] = MappingProxyType(
    {
        "expiration_strategy": ExpirationStrategy,
        "expiration_basis": ExpirationBasis,
        "renewal_basis": RenewalBasis,
        "transfer_strategy": TransferStrategy,
        "uses_counted_by": UsesCounting,
        "overage_strategy": OverageStrategy,
        "check_in_interval": CheckInInterval,
        "authentication": Authentication,
        "machine_uniqueness": MachineUniqueness,
        "machine_matching": MatchingRule,
        "component_uniqueness": ComponentUniqueness,
        "component_matching": MatchingRule,
        "machine_leasing": MachineLeasing,
        "process_leasing": ProcessLeasing,
        "seat_acquire": SeatAcquire,
        "heartbeat_basis": HeartbeatBasis,
        "heartbeat_cull": HeartbeatCull,
        "heartbeat_resurrection": HeartbeatResurrection,
    }
)
"""The terms that are one word, and the words they can be."""


class Template(StrEnum):
    """A set of defaults for a common kind of software."""

    CUSTOM = "custom"
    DESKTOP_APP = "desktop_app"
    CLI_TOOL = "cli_tool"
    SAAS = "saas"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms, by their names in the contract. `duration` None is perpetual, a limit None is unlimited."""

    duration: timedelta | None = None
    is_trial: bool = False
    trial_duration: timedelta | None = None
    expiration_strategy: ExpirationStrategy = ExpirationStrategy.RESTRICT_ACCESS
    grace_period: timedelta = timedelta(0)
    expiration_basis: ExpirationBasis = ExpirationBasis.FROM_CREATION
    renewal_basis: RenewalBasis = RenewalBasis.FROM_EXPIRY
    transfer_strategy: TransferStrategy = TransferStrategy.KEEP_EXPIRY
    max_machines: int | None = None
    max_uses: int | None = None
    uses_counted_by: UsesCounting = UsesCounting.EXPLICIT
    overage_strategy: OverageStrategy = OverageStrategy.NO_OVERAGE
    floating: bool = False
    require_fingerprint: bool = True
    require_heartbeat: bool = False
    heartbeat_interval: timedelta = timedelta(seconds=600)
    offline_allowed: bool = True
    offline_max_ttl: timedelta = timedelta(days=14)
    require_check_in: bool = False
    check_in_interval: CheckInInterval | None = None
    check_in_count: int = 1
    require_product_scope: bool = False
    require_policy_scope: bool = False
    require_user_scope: bool = False
    protected: bool = False
    authentication: Authentication = Authentication.LICENSE
    overridable: tuple[PolicyLimit, ...] = ()
    stale_ok_for: timedelta = timedelta(0)
    strict: bool = True
    max_users: int | None = None
    max_cores: int | None = None
    max_memory_bytes: int | None = None
    max_disk_bytes: int | None = None
    max_processes: int | None = None
    machine_uniqueness: MachineUniqueness = MachineUniqueness.UNIQUE_PER_LICENSE
    machine_matching: MatchingRule = MatchingRule.MATCH_ANY
    component_uniqueness: ComponentUniqueness = ComponentUniqueness.UNIQUE_PER_MACHINE
    component_matching: MatchingRule = MatchingRule.MATCH_ANY
    machine_leasing: MachineLeasing = MachineLeasing.PER_LICENSE
    process_leasing: ProcessLeasing = ProcessLeasing.PER_MACHINE
    seat_acquire: SeatAcquire = SeatAcquire.REJECT
    require_machine_scope: bool = False
    require_components_scope: bool = False
    heartbeat_basis: HeartbeatBasis = HeartbeatBasis.FROM_FIRST_PING
    heartbeat_cull: HeartbeatCull = HeartbeatCull.DEACTIVATE_DEAD
    heartbeat_resurrection: HeartbeatResurrection = HeartbeatResurrection.NO_REVIVE
    max_transfers: int | None = None
    transfer_period: timedelta = timedelta(days=30)
    allow_machine_transfer: bool = False

    @property
    def first_duration(self) -> timedelta | None:
        """How long a license lasts before any renewal."""
        return self.trial_duration or self.duration


GENERAL: Final = Terms()
"""What holds where neither the caller nor a template says otherwise."""

TEMPLATES: Final[Mapping[Template, Terms]] = MappingProxyType(
    {
        Template.CUSTOM: GENERAL,
        Template.DESKTOP_APP: Terms(max_machines=2),
        Template.CLI_TOOL: Terms(max_machines=3, offline_max_ttl=timedelta(days=7)),
        Template.SAAS: Terms(
            duration=timedelta(days=30),
            floating=True,
            require_fingerprint=False,
            require_heartbeat=True,
            heartbeat_interval=timedelta(minutes=1440),
            offline_allowed=False,
        ),
        Template.TRIAL: Terms(duration=timedelta(days=14), is_trial=True, max_machines=1, offline_allowed=False),
    }
)
UNLIMITED: Final = frozenset({Template.SAAS})
"""The templates whose choice is the consent to unlimited machines."""


def refuse_unconfirmed(max_machines: int | None, *, confirmed: bool) -> None:
    """UNLIMITED_NOT_CONFIRMED where machines would be unlimited and nobody said so."""
    if max_machines is None and not confirmed:
        raise DomainError(
            Reason.UNLIMITED_NOT_CONFIRMED,
            "without max_machines the number of machines is unlimited: set it, or set allow_unlimited",
            metadata={"field": "max_machines"},
        )


@dataclass(frozen=True, slots=True)
class Overrides:
    """Limits of one license; None is the policy's."""

    max_machines: int | None = None
    max_uses: int | None = None
    offline_max_ttl: timedelta | None = None
    max_users: int | None = None
    max_cores: int | None = None
    max_memory_bytes: int | None = None
    max_disk_bytes: int | None = None
    max_processes: int | None = None


def refuse_not_overridable(overrides: Overrides, terms: Terms, policy_id: str) -> None:
    """POLICY_INCOMPATIBLE where a license would override a limit that its policy does not let it."""
    refused = [
        limit.value.lower()
        for limit in PolicyLimit
        if getattr(overrides, limit.value.lower()) is not None and limit not in terms.overridable
    ]
    if refused:
        raise DomainError(
            Reason.POLICY_INCOMPATIBLE,
            f"the policy does not list {' and '.join(refused)} as overridable",
            metadata={"policyId": policy_id},
        )


def check_in_since(terms: Terms, before: Terms | None, since: datetime | None, now: datetime) -> datetime | None:
    """From when on a policy requires check-ins: what was due before that nobody owes."""
    if not terms.require_check_in:
        return None
    return since if before is not None and before.require_check_in else now
