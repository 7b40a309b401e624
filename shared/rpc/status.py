"""Errors as `google.rpc.Status`: what a caller sees of a `DomainError`, small enough for a trailer."""

from __future__ import annotations

from typing import Final

from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from shared.errors import DOMAIN, Code, DomainError, Reason
from shared.rpc.context import CallAbortedError

DETAILS_KEY: Final = "grpc-status-details-bin"
"""The trailer in which gRPC carries the serialized Status."""

# Clients refuse trailers over 8 KiB by default. base64 adds a third, percent-encoding may triple the message, and the
# message travels twice.
MAX_MESSAGE_BYTES: Final = 600
MAX_VALUE_CHARS: Final = 256
MAX_VIOLATIONS_BYTES: Final = 2560

_QUOTAS: Final = frozenset({Reason.INSUFFICIENT_USAGE, Reason.MACHINE_LIMIT_EXCEEDED, Reason.TRANSFER_LIMIT_EXCEEDED})

_NAMES: Final = {
    0: "OK", 1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND",
    6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 10: "ABORTED",
    11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip


def code_name(number: int) -> str:
    """The name of a gRPC code; a number that is none is UNKNOWN."""
    return _NAMES.get(number, "UNKNOWN")


def _cut(text: str, chars: int = MAX_VALUE_CHARS) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _cut_message(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= MAX_MESSAGE_BYTES:
        return raw.decode("utf-8")
    return raw[: MAX_MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "…"


def to_status(error: DomainError, call_id: str, method: str = "") -> status_pb2.Status:
    """The Status of a refusal: ErrorInfo, RequestInfo, and BadRequest, PreconditionFailure, QuotaFailure, RetryInfo where
    they apply.

    Args:
        error: What went wrong.
        call_id: The id under which the log has more.
        method: The method's path; the subject of a failed precondition that names no resource.
    """
    status = status_pb2.Status(code=error.code, message=_cut_message(error.message))
    metadata = {key: _cut(value) for key, value in error.metadata.items()}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata))
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=call_id))
    if error.violations:
        status.details.add().Pack(_bad_request(error))
    if error.code is Code.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(
            type=error.reason.value, subject=metadata.get("id", method), description=_cut(error.message)
        )
        status.details.add().Pack(failure)
    if error.reason in _QUOTAS:
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject=metadata.get("id", method), description=_cut(error.message))
        status.details.add().Pack(quota)
    if error.retry_after_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after_ms)
        status.details.add().Pack(retry)
    return status


def _bad_request(error: DomainError) -> error_details_pb2.BadRequest:
    """As many violations as fit; the ErrorInfo's `violations` tells how many there were."""
    bad = error_details_pb2.BadRequest()
    room = MAX_VIOLATIONS_BYTES
    for violation in error.violations:
        field, description = _cut(violation.field), _cut(violation.description)
        room -= len(field.encode()) + len(description.encode()) + len(violation.reason) + 8
        if room < 0 and bad.field_violations:
            break
        bad.field_violations.add(field=field, reason=violation.reason, description=description)
    return bad


def status_of(error: DomainError | CallAbortedError, call_id: str, method: str) -> status_pb2.Status:
    """The Status of whatever leaves a route. A standard servicer's abort has no reason of ours: RequestInfo alone."""
    if isinstance(error, DomainError):
        return to_status(error, call_id, method)
    status = status_pb2.Status(code=error.code, message=_cut_message(error.details))
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id=call_id))
    return status
