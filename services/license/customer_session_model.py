"""Customer sessions: short-lived credentials of one customer, and what of the vendor's data they show. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

DEFAULT_TTL: Final = timedelta(minutes=15)
MIN_TTL: Final = timedelta(minutes=1)
MAX_TTL: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class CustomerSession:
    """A session's record; the token itself is nowhere, only its hash in the table."""

    customer_session_id: str
    customer_id: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class EndedSessions:
    """What the end of a customer's sessions was: which ones."""

    customer_id: str
    customer_session_ids: tuple[str, ...]
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session and its token, shown this once."""

    session: CustomerSession
    token: str
