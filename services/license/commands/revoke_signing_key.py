"""A signing key is published no more, and what it has signed is worth nothing."""

from __future__ import annotations

from services.license import signing_key_store
from services.license.signers import Signers, apply
from services.license.signing_key_model import KeyAction, SigningKey
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def revoke_signing_key(
    tx: Transaction, signers: Signers, *, actor: str, signing_key_id: str, reason: str
) -> SigningKey:
    """SIGNING_KEY_NOT_FOUND, STATE_TRANSITION_INVALID. The next use finds another key, or makes one."""
    found = await signing_key_store.get(tx, signing_key_id)
    if found is None:
        raise not_found(Reason.SIGNING_KEY_NOT_FOUND, signing_key_id)
    await signers.lock_set(tx, found.product_id)
    found = await signing_key_store.get(tx, signing_key_id)  # as it is now that nobody else changes it
    if found is None:
        raise not_found(Reason.SIGNING_KEY_NOT_FOUND, signing_key_id)
    changed = await apply(tx, found, KeyAction.REVOKE, actor, reason)
    await signing_key_store.raise_epoch(tx, found.product_id)
    return changed
