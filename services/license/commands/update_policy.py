"""A policy's terms change, for every license under it at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.license import catalog_store
from services.license.catalog_model import Policy, refuse_unconfirmed
from services.license.events import event_data
from services.license.model import refuse_stale
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def update_policy(
    tx: Transaction, *, actor: str, policy_id: str, etag: str, changes: Mapping[str, Any], unlimited_confirmed: bool
) -> Policy:
    """POLICY_NOT_FOUND, ETAG_MISMATCH, UNLIMITED_NOT_CONFIRMED, EXTERNAL_ID_TAKEN."""
    found = await catalog_store.lock_policy(tx, policy_id)
    if found is None:
        raise not_found(Reason.POLICY_NOT_FOUND, policy_id)
    refuse_stale(etag, found.revision, policy_id)
    changed = replace(found, **changes, revision=found.revision + 1, updated_at=tx.now)
    if "max_machines" in changes:
        refuse_unconfirmed(changed.max_machines, confirmed=unlimited_confirmed)
    await catalog_store.update_policy(tx, changed)
    await emit(tx, Event("policy.updated", policy_id, event_data(changed), actor))
    return changed
