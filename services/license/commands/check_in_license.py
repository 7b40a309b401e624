"""A license checks in."""

from __future__ import annotations

from services.license import store
from services.license.events import event_data
from services.license.model import License
from services.license.transitions import check_in
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def check_in_license(tx: Transaction, *, actor: str, license_id: str, reason: str) -> License:
    """LICENSE_NOT_FOUND, POLICY_INCOMPATIBLE, STATE_TRANSITION_INVALID."""
    found = await store.lock_license(tx, license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
    changed = check_in(found, tx.now)
    await store.update_license(tx, changed)
    await emit(tx, Event("license.checked_in", license_id, event_data(changed), actor, reason))
    return changed
