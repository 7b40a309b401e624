"""A license's key is shown again, and the record says to whom and why."""

from __future__ import annotations

from services.license import store
from services.license.events import event_data
from services.license.key_keeper import KeyKeeper
from services.license.model import License
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def reveal_license_key(
    tx: Transaction, keeper: KeyKeeper, *, actor: str, license_id: str, reason: str
) -> tuple[License, str]:
    """The license and its key, from whatever state. LICENSE_NOT_FOUND, KEY_NOT_STORED, KEY_STORAGE_UNAVAILABLE."""
    found = await store.lock_license(tx, license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
    key = await keeper.reveal(tx, license_id)
    await emit(tx, Event("license.key.revealed", license_id, event_data(found, tx.now), actor, reason))
    return found, key
