"""Finds bad strings in a serialized message by walking the wire format beside its descriptor.

Parsers say only that a message is bad; callers deserve the field's path. This walk is slow and runs on the error path,
or when a message that parsed holds a zero byte somewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_DEPTH: Final = 100
"""The nesting that protobuf parsers accept."""

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)
_FIXED_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}


class MalformedError(ValueError):
    """The bytes are no protobuf message at all."""


class Fault(StrEnum):
    """What is wrong with a string, as `FieldViolation.reason`."""

    UTF8_INVALID = "UTF8_INVALID"
    NUL_IN_STRING = "NUL_IN_STRING"


@dataclass(frozen=True, slots=True)
class BadString:
    """One bad string. `path` is like `customer.email`, `items[2].name` or `labels["tier"]`."""

    path: str
    fault: Fault


def bad_strings(descriptor: Descriptor, raw: bytes) -> list[BadString]:
    """Every string that is not UTF-8 or holds NUL, in wire order.

    Raises:
        MalformedError: The framing is broken, so that no path can be trusted.
    """
    return list(_message(descriptor, memoryview(raw), "", 0))


def contradicted(number: int, raw: bytes) -> bool:
    """Whether a field that holds one string is there more than once, with different values.

    Raises:
        MalformedError: The framing is broken.
    """
    return len({bytes(payload) for found, payload in _length_delimited(memoryview(raw)) if found == number}) > 1


def _message(descriptor: Descriptor, data: memoryview, prefix: str, depth: int) -> Iterator[BadString]:
    if depth > MAX_DEPTH:
        raise MalformedError
    seen: Counter[int] = Counter()
    for number, payload in _length_delimited(data):
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        path = prefix + field.name
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            yield from _map_entry(kind, payload, path, depth + 1)
            continue
        if field.is_repeated:
            path = f"{path}[{seen[number]}]"
            seen[number] += 1
        yield from _value(field, payload, path, depth)


def _value(field: FieldDescriptor, payload: memoryview, path: str, depth: int) -> Iterator[BadString]:
    if field.type == FieldDescriptor.TYPE_STRING:
        if fault := _string_fault(payload):
            yield BadString(path, fault)
    elif field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
        yield from _message(field.message_type, payload, path + ".", depth + 1)


def _map_entry(entry: Descriptor, payload: memoryview, path: str, depth: int) -> Iterator[BadString]:
    key_field, value_field = entry.fields_by_number[1], entry.fields_by_number[2]
    parts = list(_length_delimited(payload))
    key = b""
    for number, part in parts:
        if number == 1 and key_field.type == FieldDescriptor.TYPE_STRING:
            key = bytes(part)
            if fault := _string_fault(part):
                yield BadString(f"{path}.key", fault)
    shown = key.decode("utf-8", "replace").replace("\0", "\\0")
    for number, part in parts:
        if number == 2:
            yield from _value(value_field, part, f'{path}["{shown}"]', depth)


def _string_fault(payload: memoryview) -> Fault | None:
    raw = bytes(payload)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return Fault.UTF8_INVALID
    return Fault.NUL_IN_STRING if b"\0" in raw else None


def _length_delimited(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The (field number, payload) pairs of wire type 2; the others are stepped over."""
    at = 0
    groups: list[int] = []
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise MalformedError
        if wire_type == _VARINT:
            _, at = _varint(data, at)
        elif wire_type in _FIXED_SIZES:
            at += _FIXED_SIZES[wire_type]
        elif wire_type == _BYTES:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise MalformedError
            if not groups:
                yield number, data[at : at + size]
            at += size
        elif wire_type == _GROUP and len(groups) < MAX_DEPTH:
            groups.append(number)
        elif wire_type == _END_GROUP and groups and groups[-1] == number:
            groups.pop()
        else:
            raise MalformedError
        if at > len(data):
            raise MalformedError
    if groups:
        raise MalformedError


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedError
