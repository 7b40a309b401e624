"""Field constraints as declarative tables: every bad field of a request is reported at once, each with its path.

A check is a function from a message to its violations; a table is a tuple of checks. The constraint's words stand in the
proto's comment and in the check's description.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from shared.errors import FieldViolation, fields_invalid

Check = Callable[[Any], Iterable[FieldViolation]]

MAX_TEXT_CHARS: Final = 255
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_METADATA_DEPTH: Final = 4
MAX_METADATA_KEYS: Final = 64
MAX_LABELS: Final = 64
MAX_PAGE_SIZE: Final = 1000
DEFAULT_PAGE_SIZE: Final = 50
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_LABEL_KEY: Final = re.compile(r"[a-z0-9_.-]{1,63}")
# From 0001-01-01 to 9999-12-31, without the first and the last second: the driver takes the first and the last instant
# that a datetime can hold for infinity.
_MIN_SECONDS: Final = -62135596799
_MAX_SECONDS: Final = 253402300798


def check(message: Message, checks: Iterable[Check]) -> None:
    """Raises FIELD_INVALID naming every bad field of `message`."""
    found = tuple(violation for one in checks for violation in one(message))
    if found:
        raise fields_invalid(found)


def text(
    field: str,
    *,
    required: bool = False,
    min_chars: int = 0,
    max_chars: int = MAX_TEXT_CHARS,
    pattern: str | None = None,
    reason: str = "FORMAT_INVALID",
    words: str = "",
) -> Check:
    """A string: its presence, its length in characters, and a pattern that all of it must match."""
    compiled = re.compile(pattern) if pattern else None

    def run(message: Message) -> Iterator[FieldViolation]:
        value: str = getattr(message, field)
        if not value:
            if required:
                yield FieldViolation(field, "REQUIRED", "is required")
        elif compiled is not None and not compiled.fullmatch(value):
            yield FieldViolation(field, reason, words or f"must match {pattern}")
        elif not min_chars <= len(value) <= max_chars:
            bounds = f"{min_chars} to {max_chars}" if min_chars else f"at most {max_chars}"
            yield FieldViolation(field, "LENGTH_OUT_OF_RANGE", f"must be {bounds} characters")

    return run


def request_id(*, required: bool = False) -> Check:
    """The UUID that makes a retry safe."""
    words = "must be a UUID"
    return text("request_id", required=required, pattern=_UUID.pattern, reason="UUID_INVALID", words=words)


def one_of_id(field: str, other: str = "external_id") -> Check:
    """A resource named by its id or by the caller's own key: exactly one of the two."""

    def run(message: Message) -> Iterator[FieldViolation]:
        if bool(getattr(message, field)) == bool(getattr(message, other)):
            yield FieldViolation(field, "EXACTLY_ONE", f"set {field} or {other}, and not both")

    return run


def duration(field: str, *, least: timedelta, most: timedelta, reason: str = "DURATION_OUT_OF_RANGE") -> Check:
    """A duration within bounds; absent is allowed."""

    def run(message: Message) -> Iterator[FieldViolation]:
        if not message.HasField(field):
            return
        value: Duration = getattr(message, field)
        seconds = value.seconds + value.nanos / 1e9
        if abs(value.nanos) >= 1_000_000_000 or value.seconds * value.nanos < 0:
            yield FieldViolation(field, "DURATION_INVALID", "is not a duration")
        elif not least.total_seconds() <= seconds <= most.total_seconds():
            yield FieldViolation(field, reason, f"must be from {least} to {most}")

    return run


def timestamp(field: str) -> Check:
    """A point in time from year 1 to 9999; absent is allowed."""

    def run(message: Message) -> Iterator[FieldViolation]:
        if message.HasField(field):
            value: Timestamp = getattr(message, field)
            if not (_MIN_SECONDS <= value.seconds <= _MAX_SECONDS and 0 <= value.nanos < 1_000_000_000):
                yield FieldViolation(field, "TIMESTAMP_INVALID", "is not a time from year 1 to 9999")

    return run


def number(field: str, *, least: int, most: int | None = None) -> Check:
    """An optional number within bounds; absent is allowed."""

    def run(message: Message) -> Iterator[FieldViolation]:
        if not message.HasField(field):
            return
        value: int = getattr(message, field)
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            yield FieldViolation(field, "OUT_OF_RANGE", f"must be {bounds}")

    return run


def count(field: str, least: int, most: int) -> Check:
    """How many entries a repeated field has."""

    def run(message: Message) -> Iterator[FieldViolation]:
        entries: int = len(getattr(message, field))
        if entries > most:
            yield FieldViolation(field, "TOO_MANY", f"at most {most}")
        elif entries < least:
            yield FieldViolation(field, "REQUIRED", f"at least {least}")

    return run


def known_enum(field: str) -> Check:
    """An enum value that this version knows."""

    def run(message: Message) -> Iterator[FieldViolation]:
        enum = message.DESCRIPTOR.fields_by_name[field].enum_type
        if enum is not None and getattr(message, field) not in enum.values_by_number:
            yield FieldViolation(field, "ENUM_UNKNOWN", f"is not a value of {enum.full_name}")

    return run


def enum_set(field: str) -> Check:
    """Enum values that this version knows, each at most once, and not the unspecified one."""

    def run(message: Message) -> Iterator[FieldViolation]:
        enum = message.DESCRIPTOR.fields_by_name[field].enum_type
        values: Sequence[int] = getattr(message, field)
        for index, value in enumerate(values):
            if enum is not None and (value == 0 or value not in enum.values_by_number):
                yield FieldViolation(f"{field}[{index}]", "ENUM_UNKNOWN", f"is not a value of {enum.full_name}")
            elif value in values[:index]:
                yield FieldViolation(f"{field}[{index}]", "DUPLICATE", "is there twice")

    return run


def page_size() -> Check:
    """How many to list: never negative; over the cap is taken as the cap."""

    def run(message: Any) -> Iterator[FieldViolation]:
        if message.page_size < 0:
            yield FieldViolation("page_size", "OUT_OF_RANGE", "must not be negative")

    return run


def labels() -> Check:
    """Short labels of a resource."""

    def run(message: Any) -> Iterator[FieldViolation]:
        if len(message.labels) > MAX_LABELS:
            yield FieldViolation("labels", "TOO_MANY", f"at most {MAX_LABELS}")
        for key, value in message.labels.items():
            if not _LABEL_KEY.fullmatch(key) or len(value) > MAX_TEXT_CHARS:
                shown = key[:63]
                yield FieldViolation(
                    f"labels[{json.dumps(shown)}]", "LABEL_INVALID", "key [a-z0-9_.-]{1,63}, value up to 255"
                )

    return run


def metadata() -> Check:
    """The caller's own data: 16 KiB, 4 deep, 64 keys."""

    def run(message: Any) -> Iterator[FieldViolation]:
        value: Struct = message.metadata
        if value.ByteSize() > MAX_METADATA_BYTES:
            yield FieldViolation("metadata", "TOO_LARGE", f"at most {MAX_METADATA_BYTES} bytes")
        elif _depth(value) > MAX_METADATA_DEPTH:
            yield FieldViolation("metadata", "TOO_DEEP", f"at most {MAX_METADATA_DEPTH} levels")
        elif _keys(value) > MAX_METADATA_KEYS:
            yield FieldViolation("metadata", "TOO_MANY", f"at most {MAX_METADATA_KEYS} keys in all")
        elif not _finite(value):
            yield FieldViolation("metadata", "OUT_OF_RANGE", "numbers must be finite: JSON has no others")

    return run


def _children(value: Struct | Value) -> list[Value]:
    if isinstance(value, Struct):
        return list(value.fields.values())
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return list(value.struct_value.fields.values())
    return list(value.list_value.values) if kind == "list_value" else []


def _depth(value: Struct | Value) -> int:
    children = _children(value)
    nests = isinstance(value, Struct) or value.WhichOneof("kind") in {"struct_value", "list_value"}
    return (1 if nests else 0) + max((_depth(child) for child in children), default=0)


def _keys(value: Struct | Value) -> int:
    own = len(value.fields) if isinstance(value, Struct) else len(value.struct_value.fields)
    return own + sum(_keys(child) for child in _children(value))


def _finite(value: Struct | Value) -> bool:
    own = isinstance(value, Struct) or value.WhichOneof("kind") != "number_value" or math.isfinite(value.number_value)
    return own and all(_finite(child) for child in _children(value))


def nested(field: str, *checks: Check) -> Check:
    """The checks of a message inside the message, where it is set; their paths begin with the field."""

    def run(message: Message) -> Iterator[FieldViolation]:
        if message.HasField(field):
            for one in checks:
                for found in one(getattr(message, field)):
                    yield FieldViolation(f"{field}.{found.field}", found.reason, found.description)

    return run


def required(field: str) -> Check:
    """A message inside the message that must be there."""

    def run(message: Message) -> Iterator[FieldViolation]:
        if not message.HasField(field):
            yield FieldViolation(field, "REQUIRED", "is required")

    return run


def mask(fields: Iterable[str], *, never_empty: Iterable[str] = ()) -> Check:
    """An update's mask: only known fields, at least one, and a value for those that can't be empty."""
    known, needed = frozenset(fields), frozenset(never_empty)

    def run(message: Any) -> Iterator[FieldViolation]:
        for path in message.update_mask.paths:
            if path != "*" and path not in known:
                yield FieldViolation("update_mask", "FIELD_UNKNOWN", f"{path!r} can't be updated")
        named = masked(message, known)
        if not named and not message.update_mask.paths:
            yield FieldViolation("update_mask", "REQUIRED", "names no field, and no field is set")
        for field in sorted(named & needed):
            if not getattr(message, field):
                yield FieldViolation(field, "REQUIRED", "can't be empty")

    return run


def masked(message: Any, fields: Iterable[str]) -> frozenset[str]:
    """The fields that an update changes: those of the mask, all for `*`, or those that are set where there is no mask."""
    paths = frozenset[str](message.update_mask.paths)
    if "*" in paths:
        return frozenset(fields)
    if paths:
        return paths & frozenset(fields)
    return frozenset(field.name for field, _ in message.ListFields()) & frozenset(fields)


def page_limit(size: int) -> int:
    """0 means 50; over the cap means the cap."""
    return min(size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def to_datetime(message: Message, field: str) -> datetime | None:
    """An aware datetime, to the microsecond; None when absent."""
    return getattr(message, field).ToDatetime(tzinfo=UTC) if message.HasField(field) else None


def to_timedelta(message: Message, field: str) -> timedelta | None:
    """A timedelta, to the microsecond; None when absent."""
    return getattr(message, field).ToTimedelta() if message.HasField(field) else None
