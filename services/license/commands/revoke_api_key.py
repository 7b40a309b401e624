"""A key ends."""

from __future__ import annotations

from dataclasses import replace

from services.license import account_store
from services.license.account_model import ApiKey, KeyAction, refuse_key_action
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def revoke_api_key(tx: Transaction, *, actor: str, api_key_id: str, reason: str) -> ApiKey:
    """API_KEY_NOT_FOUND, STATE_TRANSITION_INVALID."""
    found = await account_store.lock_key(tx, api_key_id)
    if found is None:
        raise not_found(Reason.API_KEY_NOT_FOUND, api_key_id)
    refuse_key_action(found.status(tx.now), KeyAction.REVOKE)
    revoked = replace(found, revoked_at=tx.now, revision=found.revision + 1, updated_at=tx.now)
    await account_store.update_key(tx, revoked)
    await emit(tx, Event("api_key.revoked", api_key_id, event_data(revoked), actor, reason))
    return revoked
