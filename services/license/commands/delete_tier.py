"""A tier that no license has is deleted."""

from __future__ import annotations

from services.license import tier_store
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def delete_tier(tx: Transaction, *, actor: str, tier_id: str, etag: str, reason: str) -> None:
    """TIER_NOT_FOUND, ETAG_MISMATCH, RESOURCE_IN_USE."""
    found = await tier_store.lock(tx, tier_id)
    if found is None:
        raise not_found(Reason.TIER_NOT_FOUND, tier_id)
    refuse_stale(etag, found.revision, tier_id)
    await tier_store.delete(tx, tier_id)
    await emit(tx, Event("tier.deleted", tier_id, event_data(found), actor, reason))
