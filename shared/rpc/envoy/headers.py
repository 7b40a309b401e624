"""gRPC's headers and trailers on HTTP/2: what a request says of itself, what a response ends with."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote

from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]

from shared.errors import Code
from shared.rpc.context import CallAbortedError, Metadata
from shared.rpc.envoy.frames import IDENTITY
from shared.rpc.status import DETAILS_KEY

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]
HeaderList: TypeAlias = list[tuple[bytes, bytes]]

CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
STATUS_OK: Final = (b"grpc-status", b"0")

CERTIFICATE_HEADER: Final = b"x-forwarded-client-cert"
"""Envoy's word on the caller's certificate. A caller's own header of that name never gets past Envoy."""

_CONTENT_TYPE: Final = re.compile(rb"application/grpc(\+proto)?\s*(;.*)?", re.IGNORECASE)
_TIMEOUT: Final = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_READ_HERE: Final = frozenset({b"content-type", b"grpc-timeout", b"grpc-encoding", b"te"})
_OF_HTTP: Final = frozenset(
    {b"host", b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"upgrade"}
)
_NOT_METADATA: Final = (b"grpc-", b"x-envoy-", b"x-forwarded-")
"""gRPC's own, and what Envoy adds to a request: no handler sees them, and they do not count as the caller's."""
_MAX_TEXTS: Final = 1024
_texts: dict[bytes, str] = {}
"""The keys of metadata that is text, by the names of their headers."""
_timeouts: dict[bytes, float] = {}
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class RequestHeaders(NamedTuple):
    """What the headers of a request say."""

    is_grpc: bool
    takes_trailers: bool
    time_left_s: float | None
    encoding: str
    metadata: Metadata

    @classmethod
    def read(cls, raw: RawHeaders) -> RequestHeaders:
        """Takes headers apart; their names are in lower case.

        Raises:
            CallAbortedError: INTERNAL; a timeout or binary metadata that gRPC does not know.
        """
        own: dict[bytes, bytes] = {}
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in raw:
            key = _texts.get(name)
            if key is not None:
                metadata.append((key, value.decode("latin-1")))
            elif name in _READ_HERE:
                own[name] = value
            elif name not in _OF_HTTP and not name.startswith(_NOT_METADATA):
                metadata.extend(_read(name, value))
        content_type = own.get(b"content-type", b"")
        timeout, encoding = own.get(b"grpc-timeout"), own.get(b"grpc-encoding")
        return cls(
            content_type == CONTENT_TYPE[1] or _CONTENT_TYPE.fullmatch(content_type) is not None,
            own.get(b"te") == b"trailers",
            None if timeout is None else _timeouts.get(timeout) or _seconds(timeout),
            IDENTITY if encoding is None else encoding.decode("latin-1"),
            tuple(metadata),
        )


def _read(name: bytes, value: bytes) -> list[tuple[str, str | bytes]]:
    """Metadata under a name that is not known yet. Those of text are remembered, as most calls name the same."""
    key = name.decode("latin-1")
    if key.endswith("-bin"):
        return [(key, _decoded(part)) for part in value.split(b",")]
    if len(_texts) < _MAX_TEXTS:
        _texts[name] = key
    return [(key, value.decode("latin-1"))]


def certificate_uris(raw: RawHeaders) -> list[str]:
    """The URIs in the certificate that the caller has shown to Envoy; none where it asked for none."""
    for name, value in raw:
        if name == CERTIFICATE_HEADER:
            # Envoy escapes nothing, so a URI with a `;` looks like more parts than there are. Whatever is behind the first
            # `URI=` is the caller's word; splitting it at every further one can only make more URIs of one.
            _, found, uris = value.decode("latin-1").partition(";URI=")
            return uris.split(";URI=") if found and uris else []
    return []


NO_HEADERS: Final = RequestHeaders(True, True, None, IDENTITY, ())
"""In place of headers that cannot be read."""


def metadata_headers(metadata: Metadata) -> HeaderList:
    """Metadata as headers or trailers; values of `-bin` keys in base64 without padding."""
    return [
        (key.encode("ascii"), _encoded(value) if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for key, value in metadata
    ]


def status_headers(status: status_pb2.Status) -> HeaderList:
    """An error as trailers."""
    return [
        (b"grpc-status", str(status.code).encode()),
        (b"grpc-message", quote(status.message, safe=_PRINTABLE, errors="replace").encode()),
        (DETAILS_KEY.encode(), _encoded(status.SerializeToString())),
    ]


def _seconds(value: bytes) -> float:
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise CallAbortedError(Code.INTERNAL, "grpc-timeout is not a number of at most eight digits and a unit")
    seconds = int(found[1]) * _UNITS_S[found[2]]
    if len(_timeouts) < _MAX_TEXTS:
        _timeouts[value] = seconds
    return seconds


def _decoded(value: bytes) -> bytes:
    """base64, with its padding or without: both are sent."""
    bare = value.strip()
    try:
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error:
        raise CallAbortedError(Code.INTERNAL, "the value of a -bin key is not base64") from None


def _encoded(value: bytes) -> bytes:
    return binascii.b2a_base64(value, newline=False).rstrip(b"=")
