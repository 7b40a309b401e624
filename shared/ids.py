"""Prefixed UUIDv7 ids: `lic_018f3c2e-...` without dashes, sortable by the time they were made."""

from __future__ import annotations

import os
import time
from enum import StrEnum


class Prefix(StrEnum):
    """What an id names."""

    ACCOUNT = "acc"
    API_KEY = "key"
    OPERATOR_KEY = "opk"
    WORKLOAD_BINDING = "wlb"
    PRODUCT = "prod"
    POLICY = "pol"
    TIER = "tier"
    CUSTOMER = "cus"
    CUSTOMER_SESSION = "cses"
    LICENSE = "lic"
    EVENT = "evt"
    DECISION = "dec"
    CALL = "call"
    PROCESS = "proc"


def uuid7_hex(now_ms: int | None = None) -> str:
    """32 hex digits of a UUIDv7: 48 bits of milliseconds, the version, and 74 random bits."""
    # The wall clock, not the record's: it puts ids in an order, and no right hangs on it.
    stamp = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    value = bytearray(stamp.to_bytes(6) + os.urandom(10))
    value[6] = 0x70 | (value[6] & 0x0F)
    value[8] = 0x80 | (value[8] & 0x3F)
    return value.hex()


def new_id(prefix: Prefix) -> str:
    """A new id, such as `lic_0199f2...`."""
    return f"{prefix.value}_{uuid7_hex()}"
