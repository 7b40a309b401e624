"""Who is asking, and in which world: what a credential stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from shared.rules.limits import Limits


class Mode(StrEnum):
    """One of the two worlds under an account."""

    TEST = "TEST"
    LIVE = "LIVE"


class PrincipalKind(StrEnum):
    """What sort of credential a call came with."""

    OPERATOR = "OPERATOR"
    SECRET_KEY = "SECRET_KEY"
    WORKLOAD = "WORKLOAD"
    PUBLISHABLE_KEY = "PUBLISHABLE_KEY"
    LICENSE_KEY = "LICENSE_KEY"
    CUSTOMER_SESSION = "CUSTOMER_SESSION"
    SERVICE = "SERVICE"
    """Another service of the deployment, on behalf of an account."""


SHIPPED_KINDS: Final = frozenset({PrincipalKind.PUBLISHABLE_KEY, PrincipalKind.LICENSE_KEY})
"""What software calls with that is in its user's hands."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An account's world. Every row of a tenant, and every cache key, starts with these two."""

    account_id: str
    mode: Mode


OPERATOR_TENANT: Final = Tenant("operator", Mode.LIVE)
"""Where the operator's own request ids are kept; no account can have this id."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as its credential says. `account_id` is empty and `mode` is None for an operator.

    `key_id` is the id of the key, of the workload binding or of the customer session, or a service's name.
    `license_id` is that of a license key's
    license, and `customer_id` that of a session's customer; both are empty for everyone else.
    """

    kind: PrincipalKind
    account_id: str
    mode: Mode | None
    key_id: str
    scopes: frozenset[str]
    expires_at: datetime | None
    limits: Limits = field(default_factory=dict[str, int], hash=False)
    """What the account has set."""
    license_id: str = ""
    customer_id: str = ""
    stale_as_of: float | None = None
    """Where no lease let memory say so and the record was away: when the state behind it was asked for, in boot time. Such
    a caller may be answered in grace alone, from the same state."""

    @property
    def tenant(self) -> Tenant:
        """The world that the call works in; the operator's own for an operator."""
        if self.mode is None:
            return OPERATOR_TENANT
        return _tenant(self.account_id, self.mode)


@lru_cache(maxsize=4096)
def _tenant(account_id: str, mode: Mode) -> Tenant:
    """One object for all that is kept of a tenant."""
    return Tenant(account_id, mode)


OPERATOR_SCOPES: Final = frozenset({"accounts:read", "accounts:write", "workloads:read", "workloads:write"})
"""What an operator's key may do; no account's key can hold these."""

ACCOUNT_SCOPES: Final = frozenset(
    {
        "keys:read", "keys:write",
        "products:read", "products:write",
        "policies:read", "policies:write",
        "tiers:read", "tiers:write",
        "customers:read", "customers:write", "sessions:write",
        "signing_keys:read", "signing_keys:write",
        "licenses:read", "licenses:write", "licenses:validate", "licenses:reveal", "licenses:checkin", "licenses:use",
        "licenses:checkout",
        "machines:read", "machines:write", "machines:activate",
    }
)  # fmt: skip
"""What an account's secret key, or a workload binding, may hold."""

PUBLISHABLE_SCOPES: Final = frozenset(
    {"licenses:validate", "licenses:checkin", "licenses:checkout", "machines:activate"}
)
"""What an account's publishable key may hold."""
