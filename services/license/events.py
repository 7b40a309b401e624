"""What this service's events carry: the subject as it is after the change. No key, no hint of one."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, cast

from services.license.account_model import Account, ApiKey
from services.license.catalog_model import Policy, Product, Tier
from services.license.customer_model import Customer
from services.license.customer_session_model import CustomerSession, EndedSessions
from services.license.model import License
from services.license.signing_key_model import SigningKey
from services.license.terms import Overrides, Terms
from services.license.workload_model import WorkloadBinding
from shared.rules.spiffe import SpiffeIdPattern

Subject = (
    Account
    | ApiKey
    | WorkloadBinding
    | Product
    | Tier
    | Policy
    | Customer
    | CustomerSession
    | EndedSessions
    | License
    | SigningKey
)
_LEFT_OUT = frozenset({"hint", "key_hint", "check_in_since", "last_validated_at", "first_activated_at"})


def event_data(subject: Subject, now: datetime | None = None) -> dict[str, Any]:
    """JSON: times as RFC 3339, durations in seconds. The state of a license is that of `now`, or of its last change.

    A policy's terms stand beside its other fields; a license leaves the terms that it is under to its policy."""
    data = _fields(subject)
    terms = data.pop("terms", None)
    if isinstance(subject, License):
        data["status"] = subject.status_at(now or subject.updated_at).value
    return {**data, **terms} if isinstance(subject, Policy) and terms is not None else data


def _fields(value: Subject | Terms | Overrides) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.name not in _LEFT_OUT}


def _plain(value: Any) -> Any:
    if isinstance(value, Terms | Overrides):
        return _fields(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, SpiffeIdPattern):
        return str(value)
    return list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
