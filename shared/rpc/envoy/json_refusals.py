"""What Envoy itself answers on the JSON listener: every refusal is a `google.rpc.Status`, as the services' own are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from shared.errors import CODES, DOMAIN, Reason
from shared.rpc.envoy.listener import MAX_HEADERS_KIB
from shared.rpc.envoy.tls import TYPES

_DETAILS: Final = "type.googleapis.com/google.rpc"
_WHY: Final = "%LOCAL_REPLY_BODY%"
"""Envoy's own words."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What is said where Envoy answers with `status`, for the cause `cause` if one is named."""

    status: int
    reason: Reason
    message: str
    violation: str = ""
    cause: str = ""


_REFUSALS: Final = (
    _Refusal(
        400, Reason.FIELD_INVALID, "the path is malformed, or holds an escaped slash or a NUL", "MESSAGE_MALFORMED",
        cause="path_normalization_failed",
    ),
    _Refusal(400, Reason.FIELD_INVALID, f"the request cannot be read: {_WHY}", "MESSAGE_MALFORMED"),
    _Refusal(403, Reason.FIELD_INVALID, "the connection cannot be upgraded", "MESSAGE_MALFORMED"),
    _Refusal(404, Reason.METHOD_UNKNOWN, f"no method here answers %REQUEST_HEADER(:METHOD)% at this path. {_WHY}"),
    _Refusal(408, Reason.DEADLINE_TOO_SHORT, "the request did not arrive in time"),
    _Refusal(413, Reason.FIELD_INVALID, "the body is over 1 MiB", "MESSAGE_TOO_LARGE"),
    _Refusal(
        431, Reason.FIELD_INVALID, f"the headers are over {MAX_HEADERS_KIB} KiB, or more than 100",
        "METADATA_TOO_LARGE",
    ),
    _Refusal(426, Reason.FIELD_INVALID, "HTTP/1.0 is not spoken here", "MESSAGE_MALFORMED"),
    _Refusal(501, Reason.FIELD_INVALID, "of transfer encodings only `chunked` is understood", "MESSAGE_MALFORMED"),
    _Refusal(503, Reason.DRAINING, f"the process that serves is not there, or leaves: {_WHY}"),
)  # fmt: skip

_ANY_OTHER: Final = _Refusal(0, Reason.INTERNAL_FAULT, f"HTTP %RESPONSE_CODE%: {_WHY}")


def local_replies() -> dict[str, Any]:
    """The listener's `local_reply_config`."""
    return {
        "mappers": [
            {"filter": _filter(refusal), "body_format_override": {"json_format": _body(refusal)}}
            for refusal in _REFUSALS
        ],
        "body_format": {"json_format": _body(_ANY_OTHER)},
    }


def _filter(refusal: _Refusal) -> dict[str, Any]:
    status = {
        "status_code_filter": {
            "comparison": {
                "op": "EQ",
                "value": {"default_value": refusal.status, "runtime_key": f"lictor.json.{refusal.status}"},
            }
        }
    }
    if not refusal.cause:
        return status
    cause = {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": f"{TYPES}.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": f"response.code_details == '{refusal.cause}'",
            },
        }
    }
    return {"and_filter": {"filters": [status, cause]}}


def _body(refusal: _Refusal) -> dict[str, Any]:
    info: dict[str, Any] = {
        "@type": f"{_DETAILS}.ErrorInfo",
        "reason": refusal.reason.value,
        "domain": DOMAIN,
        "metadata": {"violations": "1"} if refusal.violation else {},
    }
    details = [info]
    if refusal.violation:
        bad = {"field": "", "reason": refusal.violation, "description": refusal.message}
        details.append({"@type": f"{_DETAILS}.BadRequest", "fieldViolations": [bad]})
    return {"code": int(CODES[refusal.reason]), "message": refusal.message, "details": details}
