"""What a violated key of this service's tables means to the caller."""

from __future__ import annotations

from services.machine.identities import taken as fingerprint_taken
from shared.errors import DomainError, Reason


def taken(constraint: str) -> DomainError | None:
    """What a violated unique key means; None for a constraint that no input should reach."""
    match constraint:
        case "machine_external_id":
            return DomainError(
                Reason.EXTERNAL_ID_TAKEN,
                "another resource of this account and mode has this external_id",
                metadata={"field": "external_id"},
            )
        case "machine_identity":
            return fingerprint_taken("identity")
        case "component_fingerprint":
            return fingerprint_taken("components")
        case _:
            return None
