"""The one tree of errors and the one table from reason to gRPC code. docs/errors.md tells callers what each means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

DOMAIN: Final = "lictor.dev"


class Code(IntEnum):
    """The gRPC codes that we send, by their numbers on the wire."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Reason(StrEnum):
    """`lictor.common.v1.ErrorReason.Reason` by name; a test keeps the two equal."""

    FIELD_INVALID = "FIELD_INVALID"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    REVISION_TOKEN_INVALID = "REVISION_TOKEN_INVALID"
    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"
    API_KEY_NOT_FOUND = "API_KEY_NOT_FOUND"
    PRODUCT_NOT_FOUND = "PRODUCT_NOT_FOUND"
    POLICY_NOT_FOUND = "POLICY_NOT_FOUND"
    CUSTOMER_NOT_FOUND = "CUSTOMER_NOT_FOUND"
    LICENSE_NOT_FOUND = "LICENSE_NOT_FOUND"
    WORKLOAD_BINDING_NOT_FOUND = "WORKLOAD_BINDING_NOT_FOUND"
    TIER_NOT_FOUND = "TIER_NOT_FOUND"
    MACHINE_NOT_FOUND = "MACHINE_NOT_FOUND"
    SIGNING_KEY_NOT_FOUND = "SIGNING_KEY_NOT_FOUND"
    KEY_SET_NOT_FOUND = "KEY_SET_NOT_FOUND"
    EXTERNAL_ID_TAKEN = "EXTERNAL_ID_TAKEN"
    CODE_TAKEN = "CODE_TAKEN"
    KEY_TAKEN = "KEY_TAKEN"
    SPIFFE_ID_PATTERN_TAKEN = "SPIFFE_ID_PATTERN_TAKEN"
    CUSTOMER_TAKEN = "CUSTOMER_TAKEN"
    FINGERPRINT_TAKEN = "FINGERPRINT_TAKEN"
    STATE_TRANSITION_INVALID = "STATE_TRANSITION_INVALID"
    POLICY_INCOMPATIBLE = "POLICY_INCOMPATIBLE"
    UNLIMITED_NOT_CONFIRMED = "UNLIMITED_NOT_CONFIRMED"
    RESOURCE_IN_USE = "RESOURCE_IN_USE"
    KEY_NOT_STORED = "KEY_NOT_STORED"
    KEY_STORAGE_UNAVAILABLE = "KEY_STORAGE_UNAVAILABLE"
    CUSTOMER_BANNED = "CUSTOMER_BANNED"
    INSUFFICIENT_USAGE = "INSUFFICIENT_USAGE"
    MACHINE_LIMIT_EXCEEDED = "MACHINE_LIMIT_EXCEEDED"
    HEARTBEAT_DEAD = "HEARTBEAT_DEAD"
    TRANSFER_LIMIT_EXCEEDED = "TRANSFER_LIMIT_EXCEEDED"
    SEAT_LOST = "SEAT_LOST"
    OFFLINE_NOT_ALLOWED = "OFFLINE_NOT_ALLOWED"
    OVERLOADED = "OVERLOADED"
    RATE_LIMITED = "RATE_LIMITED"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    TRANSACTION_CONFLICT = "TRANSACTION_CONFLICT"
    DUPLICATE_IN_FLIGHT = "DUPLICATE_IN_FLIGHT"
    RECORD_UNREACHABLE = "RECORD_UNREACHABLE"
    DRAINING = "DRAINING"
    CREDENTIALS_INVALID = "CREDENTIALS_INVALID"
    CALLER_NOT_ALLOWED = "CALLER_NOT_ALLOWED"
    DEADLINE_TOO_SHORT = "DEADLINE_TOO_SHORT"
    RESYNC_REQUIRED = "RESYNC_REQUIRED"
    METHOD_UNKNOWN = "METHOD_UNKNOWN"
    INTERNAL_FAULT = "INTERNAL_FAULT"


CODES: Final[Mapping[Reason, Code]] = MappingProxyType(
    {
        Reason.FIELD_INVALID: Code.INVALID_ARGUMENT,
        Reason.REQUEST_ID_REUSED: Code.INVALID_ARGUMENT,
        Reason.PAGE_TOKEN_INVALID: Code.INVALID_ARGUMENT,
        Reason.REVISION_TOKEN_INVALID: Code.INVALID_ARGUMENT,
        Reason.ACCOUNT_NOT_FOUND: Code.NOT_FOUND,
        Reason.API_KEY_NOT_FOUND: Code.NOT_FOUND,
        Reason.PRODUCT_NOT_FOUND: Code.NOT_FOUND,
        Reason.POLICY_NOT_FOUND: Code.NOT_FOUND,
        Reason.CUSTOMER_NOT_FOUND: Code.NOT_FOUND,
        Reason.LICENSE_NOT_FOUND: Code.NOT_FOUND,
        Reason.WORKLOAD_BINDING_NOT_FOUND: Code.NOT_FOUND,
        Reason.TIER_NOT_FOUND: Code.NOT_FOUND,
        Reason.MACHINE_NOT_FOUND: Code.NOT_FOUND,
        Reason.SIGNING_KEY_NOT_FOUND: Code.NOT_FOUND,
        Reason.KEY_SET_NOT_FOUND: Code.NOT_FOUND,
        Reason.EXTERNAL_ID_TAKEN: Code.ALREADY_EXISTS,
        Reason.CODE_TAKEN: Code.ALREADY_EXISTS,
        Reason.KEY_TAKEN: Code.ALREADY_EXISTS,
        Reason.SPIFFE_ID_PATTERN_TAKEN: Code.ALREADY_EXISTS,
        Reason.CUSTOMER_TAKEN: Code.ALREADY_EXISTS,
        Reason.FINGERPRINT_TAKEN: Code.ALREADY_EXISTS,
        Reason.STATE_TRANSITION_INVALID: Code.FAILED_PRECONDITION,
        Reason.POLICY_INCOMPATIBLE: Code.FAILED_PRECONDITION,
        Reason.UNLIMITED_NOT_CONFIRMED: Code.FAILED_PRECONDITION,
        Reason.RESOURCE_IN_USE: Code.FAILED_PRECONDITION,
        Reason.KEY_NOT_STORED: Code.FAILED_PRECONDITION,
        Reason.KEY_STORAGE_UNAVAILABLE: Code.FAILED_PRECONDITION,
        Reason.CUSTOMER_BANNED: Code.FAILED_PRECONDITION,
        Reason.INSUFFICIENT_USAGE: Code.FAILED_PRECONDITION,
        Reason.MACHINE_LIMIT_EXCEEDED: Code.FAILED_PRECONDITION,
        Reason.HEARTBEAT_DEAD: Code.FAILED_PRECONDITION,
        Reason.TRANSFER_LIMIT_EXCEEDED: Code.FAILED_PRECONDITION,
        Reason.SEAT_LOST: Code.FAILED_PRECONDITION,
        Reason.OFFLINE_NOT_ALLOWED: Code.FAILED_PRECONDITION,
        Reason.OVERLOADED: Code.RESOURCE_EXHAUSTED,
        Reason.RATE_LIMITED: Code.RESOURCE_EXHAUSTED,
        Reason.ETAG_MISMATCH: Code.ABORTED,
        Reason.TRANSACTION_CONFLICT: Code.ABORTED,
        Reason.DUPLICATE_IN_FLIGHT: Code.ABORTED,
        Reason.RECORD_UNREACHABLE: Code.UNAVAILABLE,
        Reason.DRAINING: Code.UNAVAILABLE,
        Reason.CREDENTIALS_INVALID: Code.UNAUTHENTICATED,
        Reason.CALLER_NOT_ALLOWED: Code.PERMISSION_DENIED,
        Reason.DEADLINE_TOO_SHORT: Code.DEADLINE_EXCEEDED,
        Reason.RESYNC_REQUIRED: Code.OUT_OF_RANGE,
        Reason.METHOD_UNKNOWN: Code.UNIMPLEMENTED,
        Reason.INTERNAL_FAULT: Code.INTERNAL,
    }
)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field. `field` is its path (`customer.email`), `reason` UPPER_SNAKE; no secret is ever echoed."""

    field: str
    reason: str
    description: str


class DomainError(Exception):
    """A refusal that the caller is told about: a reason of the vocabulary, a sentence, and what belongs to it."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_ms: int | None = None,
        caller: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = metadata or {}
        self.violations = violations
        self.retry_after_ms = retry_after_ms
        self.caller = caller
        """Who is refused for calling too much; where such refusals come thick, they are kept back."""

    @property
    def code(self) -> Code:
        return CODES[self.reason]


def fields_invalid(violations: tuple[FieldViolation, ...]) -> DomainError:
    """INVALID_ARGUMENT naming every bad field at once."""
    named = "; ".join(f"{v.field or 'request'}: {v.description}" for v in violations)
    return DomainError(
        Reason.FIELD_INVALID, named, metadata={"violations": str(len(violations))}, violations=violations
    )


def not_found(reason: Reason, resource_id: str) -> DomainError:
    """NOT_FOUND for a resource; a foreign account's id gets the same words as one that never was."""
    noun = reason.value.removesuffix("_NOT_FOUND").replace("_", " ").lower()
    return DomainError(reason, f"no {noun} {resource_id!r} in this account and mode", metadata={"id": resource_id})
