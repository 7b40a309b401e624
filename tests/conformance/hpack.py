"""HTTP/2's header compression (RFC 7541), as much as a client of tests needs: it sends literals and reads everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_STATIC: Final = [
    line.partition("=")[::2]
    for line in [
        ":authority",
        ":method=GET",
        ":method=POST",
        ":path=/",
        ":path=/index.html",
        ":scheme=http",
        ":scheme=https",
        ":status=200",
        ":status=204",
        ":status=206",
        ":status=304",
        ":status=400",
        ":status=404",
        ":status=500",
        "accept-charset",
        "accept-encoding=gzip, deflate",
        "accept-language",
        "accept-ranges",
        "accept",
        "access-control-allow-origin",
        "age",
        "allow",
        "authorization",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "etag",
        "expect",
        "expires",
        "from",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "last-modified",
        "link",
        "location",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "referer",
        "refresh",
        "retry-after",
        "server",
        "set-cookie",
        "strict-transport-security",
        "transfer-encoding",
        "user-agent",
        "vary",
        "via",
        "www-authenticate",
    ]
]
"""Appendix A."""

_LENGTHS: Final = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABABABBBACCBBBABCBAABCC"
    "CCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRSVVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVW"
    "VVWWWWWXWWWWWVZ"
)
"""Appendix B: how many bits the code of each byte has, and of the end; A for 5. The codes are canonical: they follow."""


def _codes() -> dict[tuple[int, int], int]:
    codes: dict[tuple[int, int], int] = {}
    code = bits = 0
    for length, symbol in sorted((ord(letter) - ord("A") + 5, symbol) for symbol, letter in enumerate(_LENGTHS)):
        code <<= length - bits
        bits = length
        codes[length, code] = symbol
        code += 1
    return codes


_CODES: Final = _codes()


def encode(headers: Iterable[tuple[str, bytes]]) -> bytes:
    """A block of headers, none of them compressed."""
    return b"".join(b"\0" + _sized(name.encode()) + _sized(value) for name, value in headers)


def _sized(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    made, rest = bytearray([127]), len(text) - 127
    while rest >= 128:
        made.append(rest % 128 | 128)
        rest //= 128
    return bytes([*made, rest]) + text


class Decoder:
    """Reads the blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._dynamic: list[tuple[str, str]] = []
        self._size = 4096

    def decode(self, block: bytes) -> list[tuple[str, str]]:
        """The headers of a block; values as latin-1."""
        self._block, self._at = block, 0
        found: list[tuple[str, str]] = []
        while self._at < len(block):
            first = block[self._at]
            if first & 0x80:
                found.append(self._entry(self._number(7)))
            elif first & 0xE0 == 0x20:
                self._size = self._number(5)
                self._evict()
            else:
                indexed = bool(first & 0x40)
                at = self._number(6 if indexed else 4)
                name = self._entry(at)[0] if at else self._text()
                found.append((name, self._text()))
                if indexed:
                    self._dynamic.insert(0, found[-1])
                    self._evict()
        return found

    def _entry(self, at: int) -> tuple[str, str]:
        if at <= len(_STATIC):
            name, value = _STATIC[at - 1]
            return name, value
        return self._dynamic[at - len(_STATIC) - 1]

    def _evict(self) -> None:
        while sum(len(name) + len(value) + 32 for name, value in self._dynamic) > self._size:
            self._dynamic.pop()

    def _number(self, bits: int) -> int:
        most = (1 << bits) - 1
        number = self._block[self._at] & most
        self._at += 1
        shift = 0
        while number >= most:
            byte = self._block[self._at]
            self._at += 1
            number += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return number

    def _text(self) -> str:
        compressed = bool(self._block[self._at] & 0x80)
        size = self._number(7)
        raw = self._block[self._at : self._at + size]
        self._at += size
        return (_expand(raw) if compressed else raw).decode("latin-1")


def _expand(raw: bytes) -> bytes:
    """Undoes the Huffman code; what is left at the end is padding."""
    made = bytearray()
    code = length = 0
    for byte in raw:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                made.append(symbol)
                code = length = 0
    return bytes(made)
