"""Workload bindings: callers without a key, known by their certificate. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.rules.spiffe import SpiffeIdPattern
from shared.tenancy import Mode, Tenant


@dataclass(frozen=True, slots=True)
class WorkloadBinding:
    """Callers whose SPIFFE ID the pattern covers act in the account and mode, with the scopes."""

    workload_binding_id: str
    account_id: str
    mode: Mode
    external_id: str | None
    display_name: str
    spiffe_id_pattern: SpiffeIdPattern
    scopes: tuple[str, ...]
    revision: int
    created_at: datetime
    updated_at: datetime

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.account_id, self.mode)
