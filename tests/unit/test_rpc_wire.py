"""Paths of bad strings in serialized messages."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest, CustomerRef

from shared.rpc.wire import BadString, Fault, MalformedError, bad_strings, contradicted

DESCRIPTOR: Descriptor = CreateLicenseRequest.DESCRIPTOR
UTF8, NUL = Fault.UTF8_INVALID, Fault.NUL_IN_STRING


def spoiled(request: CreateLicenseRequest) -> bytes:
    return request.SerializeToString().replace(b"@@@@", b"\xff\xfe\xfd\xfc")


def test_sound_messages_have_none() -> None:
    request = CreateLicenseRequest(display_name="Ada ☃", customer=CustomerRef(email="a@b"), labels={"a": ""})
    assert bad_strings(DESCRIPTOR, request.SerializeToString()) == []
    assert bad_strings(DESCRIPTOR, b"") == []


def test_nested() -> None:
    request = CreateLicenseRequest(customer=CustomerRef(email="@@@@", display_name="a\0"), key="@@@@")
    assert bad_strings(DESCRIPTOR, spoiled(request)) == [
        BadString("customer.email", UTF8),
        BadString("customer.display_name", NUL),
        BadString("key", UTF8),
    ]


def test_map_keys_and_values() -> None:
    assert bad_strings(DESCRIPTOR, spoiled(CreateLicenseRequest(labels={"tier": "@@@@"}))) == [
        BadString('labels["tier"]', UTF8)
    ]
    assert bad_strings(DESCRIPTOR, CreateLicenseRequest(labels={"\0": "x"}).SerializeToString()) == [
        BadString("labels.key", NUL)
    ]


def test_repeated_messages_are_numbered() -> None:
    request = CreateLicenseRequest()
    request.metadata.update({"list": ["sound", "\0", 1.5, "@@@@"]})
    assert bad_strings(DESCRIPTOR, spoiled(request)) == [
        BadString('metadata.fields["list"].list_value.values[1].string_value', NUL),
        BadString('metadata.fields["list"].list_value.values[3].string_value', UTF8),
    ]


@pytest.mark.parametrize(
    "unknown",
    [
        b"\xfa\x3f\x02\xff\x00",  # length-delimited
        b"\xf8\x3f\x00",  # varint
        b"\xf9\x3f" + bytes(8),  # fixed64
        b"\xfd\x3f" + bytes(4),  # fixed32
        b"\xfb\x3f\x3a\x01\xff\xfc\x3f",  # a group that holds what looks like a bad string
        b"\x38\x00",  # field 7 as a varint, though it is a string
    ],
)
def test_unknown_fields_are_stepped_over(unknown: bytes) -> None:
    raw = unknown + CreateLicenseRequest(display_name="\0").SerializeToString()
    assert CreateLicenseRequest.FromString(raw).display_name == "\0"
    assert bad_strings(DESCRIPTOR, raw) == [BadString("display_name", NUL)]


@pytest.mark.parametrize(
    "raw",
    [b"\x0a", b"\x0a\x05ab", b"\x00\x00", b"\x0f", b"\xff" * 12, b"\x09\x00", b"\x0b", b"\x0c", b"\x22\x02\x0a\x05"],
)
def test_broken_framing(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        bad_strings(DESCRIPTOR, raw)


def test_endless_nesting_is_malformed() -> None:
    raw = b""
    for _ in range(60):  # Value.list_value > ListValue.values > Value ...
        raw = b"\x0a" + _varint(len(raw)) + raw
        raw = b"\x32" + _varint(len(raw)) + raw
    entry = b"\x0a\x01a\x12" + _varint(len(raw)) + raw
    struct = b"\x0a" + _varint(len(entry)) + entry
    with pytest.raises(MalformedError):
        bad_strings(DESCRIPTOR, b"\x5a" + _varint(len(struct)) + struct)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@given(st.binary(max_size=64))
def test_any_bytes_end_in_an_answer(raw: bytes) -> None:
    try:
        bad_strings(DESCRIPTOR, raw)
    except MalformedError:
        return


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=3))
def test_nul_is_found_exactly_where_it_is(name: str, labels: dict[str, str]) -> None:
    try:
        request = CreateLicenseRequest(display_name=name, labels=labels)
    except UnicodeEncodeError:  # lone surrogates never reach the wire
        return
    found = bad_strings(DESCRIPTOR, request.SerializeToString())
    expected = int("\0" in name) + sum(("\0" in key) + ("\0" in value) for key, value in labels.items())
    assert [bad.fault for bad in found] == [NUL] * expected


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"", False),
        (b"\x0a\x01a", False),
        (b"\x0a\x01a\x0a\x01a", False),
        (b"\x0a\x01a\x0a\x01b", True),
        (b"\x0a\x01a\x0a\x00", True),
        (b"\x0a\x01a\x12\x04\x0a\x01b\x0a", False),  # what looks like the field is another one's text
        (b"\x0a\x01a\x80\x01\x05\x0a\x01b", True),
    ],
)
def test_a_string_that_is_there_twice(raw: bytes, seen: bool) -> None:
    assert contradicted(1, raw) is seen
