"""A policy that no license uses is deleted."""

from __future__ import annotations

from services.license import catalog_store
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def delete_policy(tx: Transaction, *, actor: str, policy_id: str, etag: str, reason: str) -> None:
    """POLICY_NOT_FOUND, ETAG_MISMATCH, RESOURCE_IN_USE."""
    found = await catalog_store.lock_policy(tx, policy_id)
    if found is None:
        raise not_found(Reason.POLICY_NOT_FOUND, policy_id)
    refuse_stale(etag, found.revision, policy_id)
    await catalog_store.delete_policy(tx, policy_id)
    await emit(tx, Event("policy.deleted", policy_id, event_data(found), actor, reason))
