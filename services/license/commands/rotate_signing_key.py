"""A product gets another key that signs its files: at once, or once it has been published for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from services.license import catalog_store, signing_key_store
from services.license.signers import NewKey, Signers, apply, take_over
from services.license.signing_key_model import (
    KeyAction,
    KeyPurpose,
    KeySet,
    Living,
    SigningKey,
    refuse_second_pending,
)
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


@dataclass(frozen=True, slots=True)
class RotatedSigningKey:
    """The new key, the one that signed before it if there was one, and their set."""

    key: SigningKey
    before: SigningKey | None
    key_set: KeySet


async def rotate_signing_key(
    tx: Transaction, signers: Signers, *, actor: str, product_id: str, lead: timedelta, reason: str
) -> RotatedSigningKey:
    """PRODUCT_NOT_FOUND, STATE_TRANSITION_INVALID, KEY_STORAGE_UNAVAILABLE.

    With a `lead` the new key waits, and the one before it signs on; where none signs there is nothing to wait for.
    """
    if await catalog_store.hold_product(tx, product_id) is None:
        raise not_found(Reason.PRODUCT_NOT_FOUND, product_id)
    key_set = await signers.lock_set(tx, product_id)
    living = Living.of(await signing_key_store.living(tx, product_id, KeyPurpose.FILE))
    living = await take_over(tx, living, actor=actor)  # as the next use would have done it
    refuse_second_pending(living)
    before = living.active
    waits = before is not None and lead > timedelta(0)
    if before is not None and not waits:
        before = await apply(tx, before, KeyAction.RETIRE, actor, reason)
    wanted = NewKey(product_id, KeyPurpose.FILE, tx.now + lead if waits else None)
    made = await signers.make(tx, wanted, actor=actor, reason=reason)
    return RotatedSigningKey(made, before, key_set)
