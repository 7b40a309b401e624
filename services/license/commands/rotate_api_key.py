"""A key is replaced by a new one of its kind with the same scopes; the old one works on for a while."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.license import account_store
from services.license.account_model import ApiKey, KeyAction, refuse_key_action
from services.license.commands.create_api_key import CreatedKey, NewKey, create_api_key, refuse_wider
from services.license.events import event_data
from shared.crypto.hashing import SecretHasher
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.tenancy import Principal


async def rotate_api_key(
    tx: Transaction, hasher: SecretHasher, *, principal: Principal, api_key_id: str, overlap: timedelta
) -> tuple[CreatedKey, ApiKey]:
    """The new key and the old one's record. API_KEY_NOT_FOUND, STATE_TRANSITION_INVALID, CALLER_NOT_ALLOWED."""
    old = await account_store.lock_key(tx, api_key_id)
    if old is None:
        raise not_found(Reason.API_KEY_NOT_FOUND, api_key_id)
    refuse_key_action(old.status(tx.now), KeyAction.ROTATE)
    refuse_wider(principal, old.scopes)
    wanted = NewKey(old.display_name, None, old.scopes, old.expires_at, old.kind)
    created = await create_api_key(tx, hasher, actor=principal.key_id, wanted=wanted)
    end = tx.now + overlap
    replaced = replace(
        old,
        expires_at=end if old.expires_at is None else min(end, old.expires_at),
        replaced_by_id=created.api_key.api_key_id,
        revision=old.revision + 1,
        updated_at=tx.now,
    )
    await account_store.update_key(tx, replaced)
    await emit(tx, Event("api_key.rotated", api_key_id, event_data(replaced), principal.key_id))
    return created, replaced
