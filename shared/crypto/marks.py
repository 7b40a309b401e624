"""Short marks of secrets and requests for look-ups in a process's memory, which keeps none of them as they came."""

from __future__ import annotations

import hashlib
import os
from typing import Final

_KEY: Final = os.urandom(32)
"""Of this process alone: a mark means nothing elsewhere."""
MARK_BYTES: Final = 16
_BEGUN: Final = hashlib.blake2b(key=_KEY, digest_size=MARK_BYTES)
"""Copied for each mark: to begin anew takes longer than the rest."""


def mark(text: bytes) -> bytes:
    """16 bytes; two texts with the same mark cannot be found."""
    made = _BEGUN.copy()
    made.update(text)
    return made.digest()
