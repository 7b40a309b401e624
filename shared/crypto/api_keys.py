"""API keys and session tokens: `sk_live_` and 256 random bits with a checksum, so that a mistyped one is refused without
a look-up."""

from __future__ import annotations

import os
import zlib
from enum import StrEnum
from typing import Final

from shared.tenancy import Mode

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARS: Final = 43  # 62^43 > 2^256
_CHECK_CHARS: Final = 6  # 62^6 > 2^32
HINT_CHARS: Final = 4


class KeyPrefix(StrEnum):
    """What a key opens."""

    SECRET_LIVE = "sk_live_"
    SECRET_TEST = "sk_test_"
    PUBLISHABLE_LIVE = "pk_live_"
    PUBLISHABLE_TEST = "pk_test_"
    SESSION_LIVE = "cs_live_"
    SESSION_TEST = "cs_test_"
    OPERATOR = "op_"


def secret_prefix(mode: Mode) -> KeyPrefix:
    return KeyPrefix.SECRET_LIVE if mode is Mode.LIVE else KeyPrefix.SECRET_TEST


def publishable_prefix(mode: Mode) -> KeyPrefix:
    return KeyPrefix.PUBLISHABLE_LIVE if mode is Mode.LIVE else KeyPrefix.PUBLISHABLE_TEST


def session_prefix(mode: Mode) -> KeyPrefix:
    return KeyPrefix.SESSION_LIVE if mode is Mode.LIVE else KeyPrefix.SESSION_TEST


def mode_of(prefix: KeyPrefix) -> Mode:
    """The world that a key or token opens; ValueError for an operator's, which opens none."""
    return Mode(prefix.value.rstrip("_").rpartition("_")[2].upper())


def _base62(value: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits = _ALPHABET[digit] + digits
    return digits


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECK_CHARS)


def generate(prefix: KeyPrefix) -> str:
    """A new key: the prefix, 43 characters of randomness, 6 of checksum."""
    body = prefix.value + _base62(int.from_bytes(os.urandom(32)), _SECRET_CHARS)
    return body + _checksum(body)


def parse(text: str) -> KeyPrefix | None:
    """The prefix of a well-formed key; None for anything else."""
    for prefix in KeyPrefix:
        if text.startswith(prefix.value) and len(text) == len(prefix.value) + _SECRET_CHARS + _CHECK_CHARS:
            body, check = text[:-_CHECK_CHARS], text[-_CHECK_CHARS:]
            return prefix if text.isascii() and check == _checksum(body) else None
    return None
