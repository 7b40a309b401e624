"""What is said about a license changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.license import store
from services.license.events import event_data
from services.license.model import License
from services.license.transitions import update
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def update_license(
    tx: Transaction, *, actor: str, license_id: str, etag: str, changes: Mapping[str, Any]
) -> License:
    """LICENSE_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID, EXTERNAL_ID_TAKEN, POLICY_INCOMPATIBLE, FIELD_INVALID."""
    found = await store.lock_license(tx, license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
    refuse_stale(etag, found.revision, license_id)
    changed = update(found, changes, tx.now)
    await store.update_license(tx, changed)
    await emit(tx, Event("license.updated", license_id, event_data(changed), actor))
    return changed
