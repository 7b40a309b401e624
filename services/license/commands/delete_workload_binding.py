"""A workload binding is deleted: nobody comes in through it any more."""

from __future__ import annotations

from services.license import workload_store
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def delete_workload_binding(
    tx: Transaction, *, actor: str, workload_binding_id: str, etag: str, reason: str
) -> None:
    """WORKLOAD_BINDING_NOT_FOUND, ETAG_MISMATCH."""
    locked = await workload_store.lock(tx, workload_binding_id)
    if locked is None:
        raise not_found(Reason.WORKLOAD_BINDING_NOT_FOUND, workload_binding_id)
    inside, found = locked
    refuse_stale(etag, found.revision, workload_binding_id)
    await workload_store.delete(inside, workload_binding_id)
    await emit(inside, Event("workload_binding.deleted", workload_binding_id, event_data(found), actor, reason))
