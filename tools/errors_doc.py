"""Makes docs/errors.md from the comments of the error vocabulary, as the descriptor set carries them.

python tools/errors_doc.py make    write docs/errors.md
python tools/errors_doc.py check   fail when docs/errors.md is stale
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from google.protobuf import descriptor_pb2

ROOT: Final = Path(__file__).resolve().parent.parent
DESCRIPTORS: Final = ROOT / "clients" / "python" / "lictor" / "descriptors.binpb"
PAGE: Final = ROOT / "docs" / "errors.md"
FILE: Final = "lictor/common/v1/error_reason.proto"
COMMENT: Final = re.compile(
    r"(?P<code>[A-Z_]+)\. (?P<meaning>.+?)(?: Metadata: (?P<metadata>`\w+`(?:, `\w+`)*)\.)? Example: `(?P<example>\{.*\})`\."
)

VIOLATIONS: Final = {
    "REQUIRED": "the field is empty and must not be",
    "EXACTLY_ONE": "of several ways to name a thing, exactly one must be set",
    "LENGTH_OUT_OF_RANGE": "too short or too long, in characters",
    "OUT_OF_RANGE": "a number or a time beyond its bounds, or a number that is not finite",
    "FORMAT_INVALID": "the text does not have its form",
    "UUID_INVALID": "not a UUID",
    "TOKEN_INVALID": "not a token from an answer of an earlier call",
    "CODE_INVALID": "a product code that is not `^[A-Z0-9]{2,16}$`",
    "SLUG_INVALID": "a product slug that is not `^[a-z0-9-]{1,63}$`",
    "URL_INVALID": "not an http or https URL",
    "EMAIL_INVALID": "not an email address",
    "LICENSE_KEY_INVALID": "a key of your own that is not 8 to 255 printable ASCII characters without spaces",
    "ADDRESS_INVALID": "neither an IPv4 nor an IPv6 address",
    "LICENSE_KEY_MISMATCH": "not a key of the license that is meant, or one that has ended",
    "FINGERPRINT_MISMATCH": "none of those that the machine is known by",
    "TTL_OUT_OF_RANGE": "a file would be good for less than an hour, or for longer than its license's policy allows",
    "SPIFFE_ID_PATTERN_INVALID": "neither a SPIFFE ID with a path nor one whose last segment is `*`",
    "OTHER_PRODUCT": "belongs to another product than the license",
    "SCOPE_UNKNOWN": "no such scope",
    "SCOPE_NOT_PUBLISHABLE": "a scope that no publishable key can hold",
    "EVENT_TYPE_UNKNOWN": "no such event, or none of a license; see [events](events.md#types)",
    "ENUM_UNKNOWN": "a number that this version has no name for",
    "FIELD_UNKNOWN": "the update mask names a field that is not there or cannot be updated",
    "CONTRADICTION": "two fields that exclude each other are set, or one without what it needs",
    "DUPLICATE": "the list, or the batch, has this value twice",
    "FEATURE_KEY_INVALID": "does not match `^[a-z0-9]+([_-][a-z0-9]+)*$`, or is longer than 63 characters",
    "DURATION_INVALID": "not a duration",
    "DURATION_OUT_OF_RANGE": "shorter or longer than allowed",
    "TIMESTAMP_INVALID": "not a time from year 1 to 9999",
    "MUST_BE_FUTURE": "the time is past",
    "BEFORE_START": "the license would expire before it starts",
    "NOT_EXPIRED": "only an expired license takes a new expiry when it is reinstated",
    "LABEL_INVALID": "a label's key or value does not have its form",
    "TOO_MANY": "too many entries",
    "TOO_DEEP": "`metadata` nests too deep",
    "TOO_LARGE": "`metadata` has too many bytes",
    "METADATA_TOO_LARGE": "the call's gRPC metadata, or the request's HTTP headers, are over 16 KiB",
    "MESSAGE_TOO_LARGE": "the message is over 1 MiB",
    "MESSAGE_MALFORMED": "the bytes are no protobuf message of this type, or the request is none in JSON",
    "MUST_BE_PAST": "the time lies ahead",
    "GIVEN_TWICE": "what the path says is said again, with another value",
    "UTF8_INVALID": "a string is not UTF-8",
    "NUL_IN_STRING": "a string holds a NUL",
}
"""The words of `FieldViolation.reason`; a test compares them with those that the code uses."""

HEAD: Final = """\
# Errors

<!-- Made by tools/errors_doc.py from protos/lictor/common/v1/error_reason.proto. Edit that file, then run
`make protos` and `.venv/bin/python tools/errors_doc.py make`. -->

Every failed call ends with a gRPC code and, in the trailer `grpc-status-details-bin`, a `google.rpc.Status` that holds
exactly one `google.rpc.ErrorInfo` of the domain `lictor.dev`. Compare its `reason`: reasons and metadata keys do not
change, messages may. `RequestInfo.request_id` is the server's id of the call; quote it when you ask the operator, whose
log has the rest under it.

A refused write has changed nothing, with two exceptions, which leave it open: `DEADLINE_TOO_SHORT` while the call ran
(the write goes on and finishes) and `RECORD_UNREACHABLE` (the connection may have broken after the commit). Repeat the
call with the same `request_id` and the answer is that of the first time.

A verdict is not an error: `ValidateLicense` on an unknown, suspended or expired license is OK with `valid: false`; see
[licensing.md](licensing.md#codes).

## Reasons

| reason | gRPC code | meaning | metadata | example |
|---|---|---|---|---|
"""

AFTER: Final = """
Any call can end with `CREDENTIALS_INVALID`, `CALLER_NOT_ALLOWED`, `OVERLOADED`, `RATE_LIMITED`, `DRAINING`,
`DEADLINE_TOO_SHORT`, `RECORD_UNREACHABLE` or `INTERNAL_FAULT`, and any write with `TRANSACTION_CONFLICT` or
`DUPLICATE_IN_FLIGHT`; the comment of an RPC lists what is particular to it.

## What to do

| code | do |
|---|---|
| `INVALID_ARGUMENT`, `FAILED_PRECONDITION`, `NOT_FOUND`, `ALREADY_EXISTS`, `PERMISSION_DENIED`, `UNAUTHENTICATED`, \
`UNIMPLEMENTED` | do not repeat the call; change what it asks, or who asks |
| `ABORTED` | read again, decide again; `DUPLICATE_IN_FLIGHT`: wait a moment, then repeat with the same `request_id` |
| `UNAVAILABLE`, `RESOURCE_EXHAUSTED` | repeat after `RetryInfo.retry_delay`; a write only with its `request_id` |
| `DEADLINE_EXCEEDED` | repeat with more time; a write only with its `request_id`, since it may have been done |
| `OUT_OF_RANGE` | ask for the stream again, without a `resume_token` |
| `INTERNAL` | do not repeat in a loop; tell the operator the call's id |

The Python client does the repeating by itself, see [its README](../clients/python/README.md).

## Other details

| detail | with |
|---|---|
| `BadRequest` | `FIELD_INVALID`: one violation per bad field, all at once |
| `RetryInfo` | `OVERLOADED`, `RATE_LIMITED`, `RECORD_UNREACHABLE` |
| `PreconditionFailure` | every `FAILED_PRECONDITION` |

## Words of field violations

`BadRequest.field_violations[].reason`, beside the `field`'s path (`customer.email`) and a sentence that never repeats a
secret. `ImportLicenses` also says by item (`items[17].key`) what a single call has a reason for: `KEY_TAKEN`,
`EXTERNAL_ID_TAKEN`, `POLICY_NOT_FOUND`, `TIER_NOT_FOUND`, `CUSTOMER_NOT_FOUND`, `CUSTOMER_BANNED`.

| word | meaning |
|---|---|
"""


@dataclass(frozen=True, slots=True)
class Reason:
    """One value of the vocabulary, as its comment describes it. `metadata` are the keys, `example` is JSON."""

    name: str
    code: str
    meaning: str
    metadata: tuple[str, ...]
    example: str

    @property
    def example_metadata(self) -> tuple[str, ...]:
        """The metadata keys of the example."""
        parsed = cast("dict[str, dict[str, str]]", json.loads(self.example))
        return tuple(parsed.get("metadata", {}))


class CommentError(Exception):
    """A comment of the vocabulary does not have its form."""


def reasons(descriptors: Path = DESCRIPTORS) -> tuple[Reason, ...]:
    """Every reason but the unspecified one, in the order of the file."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    file = next(file for file in files.file if file.name == FILE)
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    values = file.message_type[0].enum_type[0].value
    return tuple(_reason(value.name, comments.get((4, 0, 4, 0, 2, n), "")) for n, value in enumerate(values) if n)


def _reason(name: str, comment: str) -> Reason:
    found = COMMENT.fullmatch(" ".join(comment.split()))
    if found is None:
        raise CommentError(f"{name}: its comment must read `CODE. Meaning. [Metadata: keys.] Example: json.`")
    keys = tuple(re.findall(r"\w+", found["metadata"] or ""))
    return Reason(name, found["code"], found["meaning"], keys, found["example"])


def render() -> str:
    """The whole page."""
    rows = [
        f"| `{reason.name}` | `{reason.code}` | {reason.meaning} "
        f"| {', '.join(f'`{key}`' for key in reason.metadata)} | `{reason.example}` |"
        for reason in reasons()
    ]
    words = [f"| `{word}` | {meaning} |" for word, meaning in VIOLATIONS.items()]
    return HEAD + "\n".join(rows) + "\n" + AFTER + "\n".join(words) + "\n"


def make() -> int:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render())
    return 0


def check() -> int:
    if PAGE.exists() and PAGE.read_text() == render():
        print("docs/errors.md is fresh")
        return 0
    print("docs/errors.md is stale: run `.venv/bin/python tools/errors_doc.py make`")
    return 1


if __name__ == "__main__":
    actions = {"make": make, "check": check}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        raise SystemExit(__doc__)
    raise SystemExit(actions[sys.argv[1]]())
