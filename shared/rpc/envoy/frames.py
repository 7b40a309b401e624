"""gRPC's messages as they travel in the body of an HTTP/2 request: a flag, four bytes of length, the message."""

from __future__ import annotations

import zlib
from typing import Final

from shared.errors import Code
from shared.rpc.codec import MAX_MESSAGE_BYTES, too_large
from shared.rpc.context import CallAbortedError

PREFIX_BYTES: Final = 5
IDENTITY: Final = "identity"
GZIP: Final = "gzip"
ACCEPTED_ENCODINGS: Final = "identity,gzip"
_GZIP_WINDOW: Final = 31  # the largest window, with a gzip header


def frame(message: bytes) -> bytes:
    """A message as it is sent, never compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def whole_message(body: bytes) -> bytes | None:
    """The message of a body that is exactly one uncompressed frame of a size that is taken, as nearly every request is;
    otherwise None."""
    size = len(body) - PREFIX_BYTES
    if 0 <= size <= MAX_MESSAGE_BYTES and body[0] == 0 and int.from_bytes(body[1:PREFIX_BYTES], "big") == size:
        return body[PREFIX_BYTES:]
    return None


class FrameReader:
    """Cuts the body of one request, fed in chunks of any size, into messages.

    Args:
        encoding: The request's `grpc-encoding`.

    Raises:
        CallAbortedError: UNIMPLEMENTED for an encoding other than identity and gzip.
    """

    def __init__(self, encoding: str = IDENTITY) -> None:
        if encoding not in (IDENTITY, GZIP):
            raise CallAbortedError(
                Code.UNIMPLEMENTED, f"messages may be encoded as {ACCEPTED_ENCODINGS.replace(',', ' or ')}"
            )
        self._gzip = encoding == GZIP
        self._buffer = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """What was fed and not taken yet, as it arrived."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> None:
        """Takes the next part of the body. Nothing is looked at before it is asked for."""
        self._buffer += chunk

    def next(self) -> bytes | None:
        """The next message; None until the rest of it is fed.

        Raises:
            DomainError: FIELD_INVALID with MESSAGE_TOO_LARGE, as soon as a prefix announces it.
            CallAbortedError: INTERNAL; the bytes are not gRPC's.
        """
        buffer = self._buffer
        if len(buffer) < PREFIX_BYTES:
            return None
        flag, size = buffer[0], int.from_bytes(buffer[1:PREFIX_BYTES], "big")
        if size > MAX_MESSAGE_BYTES:
            raise too_large(size)
        end = PREFIX_BYTES + size
        if end > len(buffer):
            return None
        payload = bytes(buffer[PREFIX_BYTES:end])
        del buffer[:end]  # moves no bytes: a bytearray remembers where it begins
        return self._message(flag, payload)

    def finish(self) -> None:
        """Says that the body has ended.

        Raises:
            CallAbortedError: INTERNAL; it ended within a message.
        """
        if self._buffer:
            raise CallAbortedError(Code.INTERNAL, "the request ended within a message")

    def _message(self, flag: int, payload: bytes) -> bytes:
        if flag == 0:
            return payload
        if flag == 1 and self._gzip:
            return _inflate(payload)
        raise CallAbortedError(Code.INTERNAL, "a message is marked as compressed, or in a way that does not exist")


def _inflate(payload: bytes) -> bytes:
    """Never makes more than one byte over the limit, whatever the payload promises."""
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    try:
        message = inflater.decompress(payload, MAX_MESSAGE_BYTES + 1)
    except zlib.error:
        raise CallAbortedError(Code.INTERNAL, "a message is not the gzip that it says it is") from None
    if len(message) > MAX_MESSAGE_BYTES:
        raise too_large(len(message))
    if not inflater.eof or inflater.unused_data:
        raise CallAbortedError(Code.INTERNAL, "a message is not the gzip that it says it is")
    return message
