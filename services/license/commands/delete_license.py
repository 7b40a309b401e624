"""A license is deleted, from whatever state; its keys are forgotten but for their hashes, and never free again."""

from __future__ import annotations

from services.license import key_store, store
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def delete_license(tx: Transaction, *, actor: str, license_id: str, etag: str, reason: str) -> None:
    """LICENSE_NOT_FOUND, ETAG_MISMATCH."""
    found = await store.lock_license(tx, license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
    refuse_stale(etag, found.revision, license_id)
    await key_store.forget_sealed(tx, license_id)
    await store.delete_license(tx, license_id)
    await emit(tx, Event("license.deleted", license_id, event_data(found, tx.now), actor, reason))
