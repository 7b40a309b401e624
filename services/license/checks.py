"""What is wrong with a message of this service as a whole, or with one field that no general check fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from lictor.account.v1 import account_service_pb2 as account
from lictor.common.v1.common_pb2 import View
from lictor.license.v1 import license_service_pb2 as licenses

from shared.errors import FieldViolation
from shared.events.payloads import LICENSE as LICENSE_PAYLOAD
from shared.events.registry import resolve
from shared.rpc import fields as f
from shared.rules import spiffe
from shared.rules.fingerprints import check_fingerprint, check_set
from shared.tenancy import ACCOUNT_SCOPES, PUBLISHABLE_SCOPES

_ID_CHARS: Final = 64
_Status: Final = licenses.LicenseStatus.Status
MAX_EVENT_TYPES: Final = 32
_FEATURE_KEY: Final = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_MAX_FEATURE_KEYS: Final = 100
_MAX_FEATURE_KEY_CHARS: Final = 63
_MAX_BATCH: Final = 1000
_MAX_TOKEN_CHARS: Final = 128
_MAX_FULL_BATCH: Final = 100


def contradictions(message: Any) -> Iterator[FieldViolation]:
    if message.allow_unlimited and message.HasField("max_machines"):
        yield FieldViolation("allow_unlimited", "CONTRADICTION", "can't be set together with max_machines")


def perpetual(message: Any) -> Iterator[FieldViolation]:
    if message.perpetual and message.HasField("duration"):
        yield FieldViolation("perpetual", "CONTRADICTION", "can't be set together with duration")


def scopes(message: Any) -> Iterator[FieldViolation]:
    if not message.scopes:
        yield FieldViolation("scopes", "REQUIRED", "at least one scope is required")
    yield from known_scopes(message)


def known_scopes(message: Any) -> Iterator[FieldViolation]:
    for index, scope in enumerate(message.scopes):
        if scope not in ACCOUNT_SCOPES:
            yield FieldViolation(f"scopes[{index}]", "SCOPE_UNKNOWN", f"one of {', '.join(sorted(ACCOUNT_SCOPES))}")


def publishable_scopes(message: Any) -> Iterator[FieldViolation]:
    if message.kind == account.ApiKeyKind.PUBLISHABLE:
        for index, scope in enumerate(message.scopes):
            if scope in ACCOUNT_SCOPES - PUBLISHABLE_SCOPES:
                words = f"a publishable key can hold {', '.join(sorted(PUBLISHABLE_SCOPES))}"
                yield FieldViolation(f"scopes[{index}]", "SCOPE_NOT_PUBLISHABLE", words)


def spiffe_id_pattern(message: Any) -> Iterator[FieldViolation]:
    if not message.spiffe_id_pattern:
        yield FieldViolation("spiffe_id_pattern", "REQUIRED", "is required")
    elif spiffe.parse_pattern(message.spiffe_id_pattern) is None:
        yield FieldViolation(
            "spiffe_id_pattern",
            "SPIFFE_ID_PATTERN_INVALID",
            "must be a SPIFFE ID with a path, spiffe://trust.domain/path, or one whose last segment is *",
        )


def required_mode(message: Any) -> Iterator[FieldViolation]:
    if not message.mode:
        yield FieldViolation("mode", "REQUIRED", "is required")


def identity(message: Any) -> Iterator[FieldViolation]:
    """An empty set is for the verdict to tell."""
    match message.WhichOneof("identity"):
        case None:
            words = "set identity.fingerprint, identity.fingerprints or identity.workload"
            yield FieldViolation("fingerprint", "EXACTLY_ONE", words)
        case "fingerprint":
            yield from check_fingerprint(message.fingerprint, "fingerprint")
        case "fingerprints" if message.fingerprints.fingerprints:
            yield from _named_fingerprints(message.fingerprints.fingerprints, "fingerprints.fingerprints")
        case _:
            return


def named_components(message: Any) -> Iterator[FieldViolation]:
    """The same."""
    if message.components:
        yield from _named_fingerprints(message.components, "components")


def components_of_a_machine(message: Any) -> Iterator[FieldViolation]:
    if message.HasField("components") and not message.machine_id and not message.HasField("identity"):
        yield FieldViolation("components", "CONTRADICTION", "needs identity or machine_id: components are a machine's")


def _named_fingerprints(named: Any, path: str) -> Iterator[FieldViolation]:
    yield from check_set([(one.name, one.fingerprint) for one in named], path)


def no_view(words: str) -> f.Check:
    def run(message: Any) -> Iterator[FieldViolation]:
        if message.view:
            yield FieldViolation("view", "CONTRADICTION", f"must be unset: {words}")

    return run


def no_full_view(message: Any) -> Iterator[FieldViolation]:
    if message.view == View.FULL:
        yield FieldViolation("view", "CONTRADICTION", "must be DECISION or BASIC: a stream carries no metadata")


def license_ids(message: Any) -> Iterator[FieldViolation]:
    if len(message.license_ids) > _MAX_BATCH:
        yield FieldViolation("license_ids", "TOO_MANY", f"at most {_MAX_BATCH}")
    for index, license_id in enumerate(message.license_ids[:_MAX_BATCH]):
        if not 1 <= len(license_id) <= _ID_CHARS:
            words = f"must be 1 to {_ID_CHARS} characters"
            yield FieldViolation(f"license_ids[{index}]", "LENGTH_OUT_OF_RANGE", words)


def no_consistency(words: str) -> f.Check:
    def run(message: Any) -> Iterator[FieldViolation]:
        if message.HasField("consistency"):
            yield FieldViolation("consistency", "CONTRADICTION", f"must be unset: {words}")

    return run


def consistency(message: Any) -> Iterator[FieldViolation]:
    """Which of the three, and the token where there is to be one."""
    asked = message.WhichOneof("requirement")
    if asked is None:
        yield FieldViolation("requirement", "EXACTLY_ONE", "set leased, at_least_as_fresh or fully_consistent")
    elif asked == "at_least_as_fresh":
        token = message.at_least_as_fresh.revision_token.token
        if not 1 <= len(token) <= _MAX_TOKEN_CHARS:
            words = f"must be 1 to {_MAX_TOKEN_CHARS} characters"
            yield FieldViolation("at_least_as_fresh.revision_token.token", "LENGTH_OUT_OF_RANGE", words)


def batch(message: Any) -> Iterator[FieldViolation]:
    most = _MAX_FULL_BATCH if message.view == View.FULL else _MAX_BATCH
    if not message.requests:
        yield FieldViolation("requests", "REQUIRED", "at least one validation is required")
    elif len(message.requests) > most:
        yield FieldViolation("requests", "TOO_MANY", f"at most {most}")
    for index, one in enumerate(message.requests[:most]):
        if one.view:
            yield FieldViolation(f"requests[{index}].view", "CONTRADICTION", "must be unset: the batch has one view")
        if one.HasField("consistency"):
            words = "must be unset: all of a batch are answered at one state"
            yield FieldViolation(f"requests[{index}].consistency", "CONTRADICTION", words)


def one_customer(message: Any) -> Iterator[FieldViolation]:
    if sum(bool(value) for value in (message.customer_id, message.email, message.subject_ref)) != 1:
        yield FieldViolation("customer_id", "EXACTLY_ONE", "set exactly one of customer_id, email and subject_ref")


def user(message: Any) -> Iterator[FieldViolation]:
    named = message.WhichOneof("user")
    if named is None:
        yield FieldViolation("user", "EXACTLY_ONE", "set customer_id, email or subject_ref")
    elif not getattr(message, named):
        yield FieldViolation(named, "REQUIRED", "is required")


def feature_keys(message: Any) -> Iterator[FieldViolation]:
    if len(message.feature_keys) > _MAX_FEATURE_KEYS:
        yield FieldViolation("feature_keys", "TOO_MANY", f"at most {_MAX_FEATURE_KEYS}")
    for index, key in enumerate(message.feature_keys[:_MAX_FEATURE_KEYS]):
        if len(key) > _MAX_FEATURE_KEY_CHARS or not _FEATURE_KEY.fullmatch(key):
            words = "must match ^[a-z0-9]+([_-][a-z0-9]+)*$, at most 63 characters"
            yield FieldViolation(f"feature_keys[{index}]", "FEATURE_KEY_INVALID", words)


def customer_ref(message: Any) -> Iterator[FieldViolation]:
    match message.WhichOneof("ref"):
        case None:
            yield FieldViolation("ref", "EXACTLY_ONE", "set customer_id, email or subject_ref")
        case set_field:
            if not getattr(message, set_field):
                yield FieldViolation(set_field, "REQUIRED", "is required")


def event_types(message: Any) -> Iterator[FieldViolation]:
    if len(message.types) > MAX_EVENT_TYPES:
        yield FieldViolation("types", "TOO_MANY", f"at most {MAX_EVENT_TYPES}")
    for index, name in enumerate(message.types[:MAX_EVENT_TYPES]):
        known = resolve(name)
        if known is None or known.payload is not LICENSE_PAYLOAD:
            yield FieldViolation(f"types[{index}]", "EVENT_TYPE_UNKNOWN", "is no event of licenses; see docs/events.md")


def file_seq(message: Any) -> Iterator[FieldViolation]:
    if message.seq < 1:
        yield FieldViolation("seq", "OUT_OF_RANGE", "must be at least 1")


def import_contradictions(message: Any) -> Iterator[FieldViolation]:
    if message.perpetual and message.HasField("expire_time"):
        yield FieldViolation("perpetual", "CONTRADICTION", "can't be set together with expire_time")
    if message.tier_id and message.tier:
        yield FieldViolation("tier", "CONTRADICTION", "can't be set together with tier_id")
    if message.status_reason and message.status in {_Status.STATUS_UNSPECIFIED, _Status.active}:
        yield FieldViolation("status_reason", "CONTRADICTION", "an active license has none")
    if message.status == _Status.expired:
        yield FieldViolation("status", "CONTRADICTION", "leave it unset, and say the expire_time that is past")
    if message.uses < 0:
        yield FieldViolation("uses", "OUT_OF_RANGE", "must not be negative")
