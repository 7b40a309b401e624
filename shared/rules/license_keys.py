"""The form of a license key that counts. Pure."""

from __future__ import annotations

from typing import Final

MAX_CHARS: Final = 255
_CANONICAL: Final = str.maketrans("OIL", "011")


def canonical(key: str) -> str:
    """The form that is hashed: upper case, O read as 0, I and L as 1, no blanks around it."""
    return key.strip().upper().translate(_CANONICAL)
