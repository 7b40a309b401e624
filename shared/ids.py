"""Prefixed UUIDv7 ids: `lic_018f3c2e-...` without dashes, sortable by the time they were made."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from typing import Final


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
    MACHINE = "mach"
    EVENT = "evt"
    DECISION = "dec"
    CALL = "call"
    PROCESS = "proc"


_DIGITS: Final = 19
_DRAWN_BYTES: Final = 20 * 256
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class _Drawn:
    """Random digits, drawn from the system many at once: to ask it costs more than the rest of an id."""

    def __init__(self) -> None:
        self.digits = ""
        self.at = 0


_drawn: Final = _Drawn()
os.register_at_fork(after_in_child=lambda: setattr(_drawn, "digits", ""))


def _random_digits() -> str:
    start = _drawn.at
    digits = _drawn.digits[start : start + _DIGITS]
    if len(digits) < _DIGITS:
        _drawn.digits, start = os.urandom(_DRAWN_BYTES).hex(), 0
        digits = _drawn.digits[:_DIGITS]
    _drawn.at = start + _DIGITS
    return digits


def uuid7_hex(now_ms: int | None = None) -> str:
    """32 hex digits of a UUIDv7: 48 bits of milliseconds, the version, and 74 random bits."""
    # The wall clock, not the record's: it puts ids in an order, and no right hangs on it.
    stamp = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    digits = _random_digits()
    return f"{stamp:012x}7{digits[:3]}{_VARIANTS[digits[3]]}{digits[4:]}"


def new_id(prefix: Prefix) -> str:
    """A new id, such as `lic_0199f2...`."""
    return f"{prefix.value}_{uuid7_hex()}"
