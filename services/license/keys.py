"""License keys: `PREFIX-XXXX-XXXX-XXXX-XXXX`, 80 random bits in Crockford's base 32. Pure but for the system's
randomness."""

from __future__ import annotations

import secrets
from typing import Final

from shared.rules.license_keys import canonical

__all__ = ["ALPHABET", "HINT_CHARS", "canonical", "generate", "hint"]

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_GROUPS, _GROUP_CHARS = 4, 4
HINT_CHARS: Final = 4


def generate(code: str) -> str:
    """A new key with the product's code in front."""
    bits = secrets.randbits(5 * _GROUPS * _GROUP_CHARS)
    chars = "".join(ALPHABET[(bits >> (5 * place)) & 31] for place in range(_GROUPS * _GROUP_CHARS))
    groups = (chars[start : start + _GROUP_CHARS] for start in range(0, len(chars), _GROUP_CHARS))
    return "-".join((code, *groups))


def hint(key: str) -> str:
    """The last characters, to tell keys apart on a screen."""
    return key[-HINT_CHARS:]
