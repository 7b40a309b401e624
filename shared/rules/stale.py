"""How old the state may be that answers without a lease, where a policy allows it. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

MAX_STALE: Final = timedelta(hours=24)
"""The most that a policy can allow."""
