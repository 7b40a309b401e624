"""A tier's fields change, for every license that has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.license import tier_store
from services.license.catalog_model import Tier
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def update_tier(tx: Transaction, *, actor: str, tier_id: str, etag: str, changes: Mapping[str, Any]) -> Tier:
    """TIER_NOT_FOUND, ETAG_MISMATCH, EXTERNAL_ID_TAKEN, CODE_TAKEN (slug)."""
    found = await tier_store.lock(tx, tier_id)
    if found is None:
        raise not_found(Reason.TIER_NOT_FOUND, tier_id)
    refuse_stale(etag, found.revision, tier_id)
    changed = replace(found, **changes, revision=found.revision + 1, updated_at=tx.now)
    await tier_store.update(tx, changed)
    await emit(tx, Event("tier.updated", tier_id, event_data(changed), actor))
    return changed
