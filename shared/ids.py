"""Prefixed UUIDv7 ids: `lic_018f3c2e-...` without dashes, sortable by the time they were made."""

from __future__ import annotations

import os
import re
import time
from enum import StrEnum
from typing import Final


class Prefix(StrEnum):
    """What an id names."""

    ACCOUNT = "acc"
    API_KEY = "key"
    OPERATOR_KEY = "opk"
    PRODUCT = "prod"
    POLICY = "pol"
    CUSTOMER = "cus"
    LICENSE = "lic"
    EVENT = "evt"
    DECISION = "dec"
    CALL = "call"


_ID: Final = re.compile(r"^[a-z]{2,8}_[0-9a-f]{32}$")


def uuid7_hex(now_ms: int | None = None) -> str:
    """32 hex digits of a UUIDv7: 48 bits of milliseconds, the version, and 74 random bits."""
    stamp = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    value = bytearray(stamp.to_bytes(6) + os.urandom(10))
    value[6] = 0x70 | (value[6] & 0x0F)
    value[8] = 0x80 | (value[8] & 0x3F)
    return value.hex()


def new_id(prefix: Prefix) -> str:
    """A new id, such as `lic_0199f2...`."""
    return f"{prefix.value}_{uuid7_hex()}"


def is_id(text: str, prefix: Prefix) -> bool:
    """Whether `text` has the form of an id of this kind. A malformed id can only be unknown."""
    return text.startswith(prefix.value + "_") and _ID.match(text) is not None
