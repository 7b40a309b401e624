"""A workload binding gets another name or other scopes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.license import workload_store
from services.license.events import event_data
from services.license.workload_model import WorkloadBinding
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def update_workload_binding(
    tx: Transaction, *, actor: str, workload_binding_id: str, etag: str, changes: Mapping[str, Any]
) -> WorkloadBinding:
    """WORKLOAD_BINDING_NOT_FOUND, ETAG_MISMATCH."""
    locked = await workload_store.lock(tx, workload_binding_id)
    if locked is None:
        raise not_found(Reason.WORKLOAD_BINDING_NOT_FOUND, workload_binding_id)
    inside, found = locked
    refuse_stale(etag, found.revision, workload_binding_id)
    changed = replace(found, **changes, revision=found.revision + 1, updated_at=tx.now)
    await workload_store.update(inside, changed)
    await emit(inside, Event("workload_binding.updated", workload_binding_id, event_data(changed), actor))
    return changed
