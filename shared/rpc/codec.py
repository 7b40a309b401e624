"""From bytes to a checked message: size, then parse, then no NUL in strings. All bad strings are named at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from shared.errors import DomainError, FieldViolation, fields_invalid
from shared.rpc.wire import BadString, Fault, MalformedError, bad_strings, contradicted

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""The largest request, after decompression."""

WALK_IN_THREAD_BYTES: Final = 4 * 1024
"""Messages larger than this are walked in a thread: tiny fields take the walk 0.8 us a byte, so 3 ms of the loop."""

_SENTENCES: Final = {
    Fault.UTF8_INVALID: "the string is not valid UTF-8",
    Fault.NUL_IN_STRING: "the string holds a NUL character",
}


def decoded(request_class: type[Message], raw: bytes, once: Sequence[FieldDescriptor] = ()) -> Message | None:
    """As `decode`, at once; None where that is not possible, or there is something wrong with the request."""
    if len(raw) > MAX_MESSAGE_BYTES:
        return None
    for field in once:
        if raw.count(_tag(field)) > 1:
            return None
    try:
        message = request_class.FromString(raw)
    except DecodeError:
        return None
    return None if _may_hold_nul(message, raw) else message


async def decode(request_class: type[Message], raw: bytes, once: Sequence[FieldDescriptor] = ()) -> Message:
    """Parses one request.

    Args:
        request_class: What it is.
        raw: The bytes.
        once: Strings that may not be given twice with different values, though protobuf would take the last: over HTTP
            one comes from the path and one from elsewhere, and what is done would not be what the path says.

    Raises:
        DomainError: FIELD_INVALID; violations MESSAGE_TOO_LARGE, MESSAGE_MALFORMED, UTF8_INVALID, NUL_IN_STRING or
            GIVEN_TWICE.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise too_large(len(raw))
    descriptor = cast("Descriptor", request_class.DESCRIPTOR)
    try:
        message = request_class.FromString(raw)
    except DecodeError:
        found = await _walk(descriptor, raw)
        raise _refusal(found) if found else _malformed(descriptor) from None
    if _may_hold_nul(message, raw) and (found := await _walk(descriptor, raw)):
        raise _refusal(found)
    for field in once:
        if raw.count(_tag(field)) > 1:
            await _refuse_contradiction(field, raw)
    return message


def _may_hold_nul(message: Message, raw: bytes) -> bool:
    """Whether a walk may find a NUL. Empty messages and some numbers are zero bytes too: the text of a message has no other NUL
    than those of its strings, escaped, and is made by protobuf itself in a fiftieth of a walk's time."""
    return b"\0" in raw and (len(raw) > WALK_IN_THREAD_BYTES or r"\000" in str(message))


def _tag(field: FieldDescriptor) -> bytes:
    """The tag as one byte, or the first of several: it is almost nowhere twice unless the field is."""
    return bytes(((field.number << 3 | 2) & 0x7F | (0x80 if field.number > 15 else 0),))


async def _refuse_contradiction(field: FieldDescriptor, raw: bytes) -> None:
    long = len(raw) > WALK_IN_THREAD_BYTES
    if await asyncio.to_thread(contradicted, field.number, raw) if long else contradicted(field.number, raw):
        words = "is given twice, with different values: say it in the path only"
        raise fields_invalid((FieldViolation(field.name, "GIVEN_TWICE", words),))


def too_large(size: int) -> DomainError:
    """FIELD_INVALID with MESSAGE_TOO_LARGE, for whoever notices first."""
    return _whole("MESSAGE_TOO_LARGE", f"the message has {size} bytes; at most {MAX_MESSAGE_BYTES} are taken")


async def _walk(descriptor: Descriptor, raw: bytes) -> list[BadString]:
    try:
        if len(raw) > WALK_IN_THREAD_BYTES:
            return await asyncio.to_thread(bad_strings, descriptor, raw)
        return bad_strings(descriptor, raw)
    except MalformedError:
        return []


def _refusal(found: list[BadString]) -> DomainError:
    return fields_invalid(tuple(FieldViolation(bad.path, bad.fault.value, _SENTENCES[bad.fault]) for bad in found))


def _malformed(descriptor: Descriptor) -> DomainError:
    return _whole("MESSAGE_MALFORMED", f"the bytes are not a {descriptor.full_name}")


def _whole(reason: str, description: str) -> DomainError:
    """A violation of the message as a whole: its path is empty."""
    return fields_invalid((FieldViolation("", reason, description),))
