"""The terms of a policy as keyword arguments."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypedDict

from lictor.license.v1 import catalog_service_pb2 as pb
from lictor.license.v1 import policy_terms_pb2 as words

from .convert import enum_value


class PolicyTerms(TypedDict, total=False):
    """What the licenses under a policy live by; docs/licensing.md tells what each does. Words may be given as strings."""

    duration: timedelta | None
    is_trial: bool | None
    trial_duration: timedelta | None
    expiration_strategy: str | words.ExpirationStrategy.Kind.ValueType | None
    grace_period: timedelta | None
    expiration_basis: str | words.ExpirationBasis.Kind.ValueType | None
    renewal_basis: str | words.RenewalBasis.Kind.ValueType | None
    transfer_strategy: str | words.TransferStrategy.Kind.ValueType | None
    max_machines: int | None
    max_uses: int | None
    uses_counted_by: str | words.UsesCounting.Kind.ValueType | None
    overage_strategy: str | words.OverageStrategy.Kind.ValueType | None
    floating: bool | None
    require_fingerprint: bool | None
    require_heartbeat: bool | None
    heartbeat_interval: timedelta | None
    offline_allowed: bool | None
    offline_max_ttl: timedelta | None
    require_check_in: bool | None
    check_in_interval: str | words.CheckInInterval.Kind.ValueType | None
    check_in_count: int | None
    require_product_scope: bool | None
    require_policy_scope: bool | None
    require_user_scope: bool | None
    protected: bool | None
    authentication: str | words.Authentication.Kind.ValueType | None
    overridable: Iterable[str | words.PolicyLimit.Kind.ValueType] | None
    stale_ok_for: timedelta | None
    strict: bool | None
    max_users: int | None
    max_cores: int | None
    max_memory_bytes: int | None
    max_disk_bytes: int | None
    max_processes: int | None
    machine_uniqueness: str | words.MachineUniqueness.Kind.ValueType | None
    machine_matching: str | words.MatchingRule.Kind.ValueType | None
    component_uniqueness: str | words.ComponentUniqueness.Kind.ValueType | None
    component_matching: str | words.MatchingRule.Kind.ValueType | None
    machine_leasing: str | words.MachineLeasing.Kind.ValueType | None
    process_leasing: str | words.ProcessLeasing.Kind.ValueType | None
    seat_acquire: str | words.SeatAcquire.Kind.ValueType | None
    require_machine_scope: bool | None
    require_components_scope: bool | None
    heartbeat_basis: str | words.HeartbeatBasis.Kind.ValueType | None
    heartbeat_cull: str | words.HeartbeatCull.Kind.ValueType | None
    heartbeat_resurrection: str | words.HeartbeatResurrection.Kind.ValueType | None
    max_transfers: int | None
    transfer_period: timedelta | None
    allow_machine_transfer: bool | None


def set_terms(request: pb.CreatePolicyRequest | pb.UpdatePolicyRequest, terms: PolicyTerms) -> None:
    """Sets the terms that are given; what is None stays absent. TypeError names one that there is not."""
    for name, value in terms.items():
        if name not in PolicyTerms.__annotations__:
            raise TypeError(f"a policy has no {name}")
        if value is not None:
            _set(request, name, value)


def _set(request: pb.CreatePolicyRequest | pb.UpdatePolicyRequest, name: str, value: Any) -> None:
    if isinstance(value, timedelta):
        getattr(request, name).FromTimedelta(value)
    elif name == "overridable":
        request.overridable.extend(enum_value(words.PolicyLimit.Kind, limit) for limit in value)
    elif name in _WORDS:
        setattr(request, name, enum_value(_WORDS[name], value))
    else:
        setattr(request, name, value)


_WORDS: dict[str, Any] = {
    "expiration_strategy": words.ExpirationStrategy.Kind,
    "expiration_basis": words.ExpirationBasis.Kind,
    "renewal_basis": words.RenewalBasis.Kind,
    "transfer_strategy": words.TransferStrategy.Kind,
    "uses_counted_by": words.UsesCounting.Kind,
    "overage_strategy": words.OverageStrategy.Kind,
    "check_in_interval": words.CheckInInterval.Kind,
    "authentication": words.Authentication.Kind,
    "machine_uniqueness": words.MachineUniqueness.Kind,
    "machine_matching": words.MatchingRule.Kind,
    "component_uniqueness": words.ComponentUniqueness.Kind,
    "component_matching": words.MatchingRule.Kind,
    "machine_leasing": words.MachineLeasing.Kind,
    "process_leasing": words.ProcessLeasing.Kind,
    "seat_acquire": words.SeatAcquire.Kind,
    "heartbeat_basis": words.HeartbeatBasis.Kind,
    "heartbeat_cull": words.HeartbeatCull.Kind,
    "heartbeat_resurrection": words.HeartbeatResurrection.Kind,
}
