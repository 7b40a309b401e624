"""Reads of what happened to a license."""

from __future__ import annotations

from collections.abc import Sequence

from services.license import event_store
from services.license.event_store import EventFilter, StoredEvent
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix


async def events_of_a_license(tx: Transaction, wanted: EventFilter, after: str, limit: int) -> Sequence[StoredEvent]:
    """What happened to a license, from the number after `after` on. LICENSE_NOT_FOUND where there never was one.

    A license that was deleted has its events still; the ids of other things, which have events too, are no license's.
    """
    if not wanted.subject.startswith(f"{Prefix.LICENSE.value}_") or not await event_store.is_known(tx, wanted.subject):
        raise not_found(Reason.LICENSE_NOT_FOUND, wanted.subject)
    return await event_store.page(tx, wanted, int(after or 0), limit)
