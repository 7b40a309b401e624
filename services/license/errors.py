"""What a violated key of this service's tables means to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from shared.errors import DomainError, Reason

_TAKEN: Final[Mapping[str, tuple[Reason, str]]] = MappingProxyType(
    {
        "account_external_id": (Reason.EXTERNAL_ID_TAKEN, "external_id"),
        "api_key_external_id": (Reason.EXTERNAL_ID_TAKEN, "external_id"),
        "workload_binding_external_id": (Reason.EXTERNAL_ID_TAKEN, "external_id"),
        "product_external_id": (Reason.EXTERNAL_ID_TAKEN, "external_id"),
        "tier_external_id": (Reason.EXTERNAL_ID_TAKEN, "external_id"),
        "policy_external_id": (Reason.EXTERNAL_ID_TAKEN, "external_id"),
        "license_external_id": (Reason.EXTERNAL_ID_TAKEN, "external_id"),
        "product_code": (Reason.CODE_TAKEN, "code"),
        "product_slug": (Reason.CODE_TAKEN, "slug"),
        "tier_slug": (Reason.CODE_TAKEN, "slug"),
        "customer_email": (Reason.CUSTOMER_TAKEN, "email"),
        "customer_subject_ref": (Reason.CUSTOMER_TAKEN, "subject_ref"),
        "license_key_hash": (Reason.KEY_TAKEN, "key"),
    }
)
_PATTERN_TAKEN: Final = frozenset({"workload_binding_pattern", "workload_binding_overlap"})


def taken(constraint: str) -> DomainError | None:
    """What a violated unique key means; None for a constraint that no input should reach."""
    if constraint in _PATTERN_TAKEN:
        return DomainError(
            Reason.SPIFFE_ID_PATTERN_TAKEN,
            "another workload binding has this pattern, or one of another account overlaps with it",
            metadata={"field": "spiffe_id_pattern"},
        )
    known = _TAKEN.get(constraint)
    if known is None:
        return None
    reason, field = known
    return DomainError(reason, f"another resource of this account and mode has this {field}", metadata={"field": field})


def in_use(resource_id: str, used_by: str) -> DomainError:
    """RESOURCE_IN_USE for a resource that others of the kind `used_by` still name."""
    return DomainError(
        Reason.RESOURCE_IN_USE,
        f"{resource_id} is still used by at least one {used_by}",
        metadata={"id": resource_id, "usedBy": used_by},
    )
