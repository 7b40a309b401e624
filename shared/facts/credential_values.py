"""What is known of credentials and accounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

CREDENTIAL_BYTES: Final = 900
"""About what a credential or an account takes."""


@dataclass(frozen=True, slots=True)
class AccountValue:
    """An account."""

    status: str
    limits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ApiKeyValue:
    """A secret or publishable key."""

    account_id: str
    mode: str
    kind: str
    api_key_id: str
    scopes: Sequence[str]
    expires_at: datetime | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class OperatorKeyValue:
    """An operator's key."""

    operator_key_id: str
    revoked: bool


@dataclass(frozen=True, slots=True)
class SessionValue:
    """A customer session."""

    account_id: str
    mode: str
    customer_session_id: str
    customer_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class BindingValue:
    """A workload binding."""

    account_id: str
    mode: str
    workload_binding_id: str
    scopes: Sequence[str]
