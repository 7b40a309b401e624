"""The client's one tree of errors, and how a failed call becomes one of them.

`google.rpc.Status` is read by hand from its trailer: the client needs no package beyond grpcio and the message types.
"""
# ruff: noqa: N818 - the classes are named as the gRPC codes that they stand for

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

DOMAIN: Final = "lictor.dev"
STATUS_TRAILER: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field of a request: its path, an UPPER_SNAKE reason and a sentence."""

    field: str
    reason: str
    description: str


class LictorError(Exception):
    """A call that got no answer.

    `code` is the gRPC code (`NOT_FOUND`); `reason` the word to compare (`LICENSE_NOT_FOUND`), empty when the failure
    did not come from Lictor, as when nothing listens; `message` a sentence that may change; `metadata` belongs to the
    reason; `violations` are the bad fields; `request_id` is the server's id of the call; `retry_after_s` is how long
    the server asks to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = violations
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        call = f" (call {self.request_id})" if self.request_id else ""
        return f"{self.reason or self.code}: {self.message}{call}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, reason={self.reason!r}, message={self.message!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (
            type(self),
            self.message,
            {name: value for name, value in vars(self).items() if name != "message"},
        )


def _rebuild(kind: type[LictorError], message: str, fields: dict[str, object]) -> LictorError:
    """Unpickles an error; keyword-only arguments are beyond what exceptions do by themselves."""
    error = kind(message, code=str(fields["code"]))
    vars(error).update(fields)
    return error


class InvalidArgument(LictorError):
    """The request is wrong; `violations` names each bad field."""


class NotFound(LictorError):
    """No such resource in this account and mode."""


class AlreadyExists(LictorError):
    """Another resource has this external id, code or key."""


class FailedPrecondition(LictorError):
    """The resource's state does not allow this."""


class Aborted(LictorError):
    """Lost against another call; read again, then decide again."""


class Unavailable(LictorError):
    """Not reachable, or not able to answer now; the client has tried again already."""


class Unauthenticated(LictorError):
    """The credential is absent, unknown, expired or revoked."""


class PermissionDenied(LictorError):
    """The credential is good and does not allow this call."""


class DeadlineExceeded(LictorError):
    """The time ran out; whether a write was done is open until it is repeated with the same `request_id`."""


class ResourceExhausted(LictorError):
    """The server takes no more calls now, or a message is too large."""


class Unimplemented(LictorError):
    """The server has no such method: it is older than this client, or something else."""


class Internal(LictorError):
    """A fault of the server, or an answer that cannot be read."""


class NoStableIdentityError(LictorError):
    """This machine has nothing that tells it from others and stays, so it has no fingerprint. Nothing was sent.

    `reason` is CONTAINER_WITHOUT_IDENTITY, IDENTITY_UNUSABLE, IDENTITY_AMBIGUOUS or NO_MACHINE_IDENTITY; `remedy` says what
    to do about it. Raised by `fingerprint()` alone.
    """

    def __init__(self, message: str, *, reason: str, remedy: str) -> None:
        super().__init__(message, code="FAILED_PRECONDITION", reason=reason)
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}. {self.remedy}."

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_refusal, (self.message, self.reason, self.remedy)


def _rebuild_refusal(message: str, reason: str, remedy: str) -> NoStableIdentityError:
    return NoStableIdentityError(message, reason=reason, remedy=remedy)


BY_CODE: Final[Mapping[str, type[LictorError]]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": InvalidArgument,
        "NOT_FOUND": NotFound,
        "ALREADY_EXISTS": AlreadyExists,
        "FAILED_PRECONDITION": FailedPrecondition,
        "ABORTED": Aborted,
        "UNAVAILABLE": Unavailable,
        "UNAUTHENTICATED": Unauthenticated,
        "PERMISSION_DENIED": PermissionDenied,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
        "RESOURCE_EXHAUSTED": ResourceExhausted,
        "UNIMPLEMENTED": Unimplemented,
        "INTERNAL": Internal,
    }
)


def _status_of(trailers: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status:
    for key, value in trailers:
        if key == STATUS_TRAILER and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def error_of(code: grpc.StatusCode, details: str | None, trailers: Iterable[tuple[str, str | bytes]]) -> LictorError:
    """The error that a failed call means. A damaged or absent status detail leaves code and message."""
    return _error(code.name, _status_of(trailers), details or "the call failed without a message")


def error_of_status(status: status_pb2.Status) -> LictorError:
    """The error of one item of a batch."""
    names = {number: code.name for code in grpc.StatusCode for number in (code.value[0],)}
    return _error(names.get(status.code, "UNKNOWN"), status, "the item failed without a message")


def _error(code: str, status: status_pb2.Status, message: str) -> LictorError:
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    wait_s: float | None = None
    for detail in status.details:
        try:
            if detail.Unpack(retry):
                wait_s = max(0.0, retry.retry_delay.ToTimedelta().total_seconds())
            else:
                # Unpack leaves a message alone when the detail is of another type.
                _ = detail.Unpack(info) or detail.Unpack(request) or detail.Unpack(bad)
        except (DecodeError, ValueError, OverflowError):
            continue
    ours = info.domain == DOMAIN
    return BY_CODE.get(code, LictorError)(
        status.message or message,
        code=code,
        reason=info.reason if ours else "",
        metadata=dict(info.metadata) if ours else {},
        violations=tuple(FieldViolation(v.field, v.reason, v.description) for v in bad.field_violations),
        request_id=request.request_id,
        retry_after_s=wait_s,
    )
