"""What is known of customers, as far as decisions read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CustomerValue:
    """A customer."""

    customer_subject_ref: str | None
    customer_email_hash: bytes | None
    customer_banned: bool


NOBODY: Final = CustomerValue(None, None, False)
"""Who holds a license that nobody holds."""
