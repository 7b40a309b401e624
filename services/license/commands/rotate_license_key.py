"""A license gets a new key; the keys before it work on for a while, or end at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.license import catalog_store, keys, store
from services.license.events import event_data
from services.license.key_keeper import KeyKeeper
from services.license.model import License
from services.license.transitions import rotate_key
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """What is asked. `key` None means that one is generated; every key before ends after `overlap` at the latest."""

    license_id: str
    etag: str
    reason: str
    key: str | None
    overlap: timedelta


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """The license, its new key, and when those before it have ended."""

    license: License
    key: str
    old_keys_end_at: datetime


async def rotate_license_key(tx: Transaction, keeper: KeyKeeper, *, actor: str, wanted: KeyRotation) -> RotatedKey:
    """LICENSE_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID, KEY_TAKEN, KEY_STORAGE_UNAVAILABLE."""
    found = await store.lock_license(tx, wanted.license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, wanted.license_id)
    refuse_stale(wanted.etag, found.revision, wanted.license_id)
    product = await catalog_store.get_product(tx, found.product_id)
    if product is None:
        raise not_found(Reason.PRODUCT_NOT_FOUND, found.product_id)
    key = wanted.key or keys.generate(product.code)
    changed = rotate_key(found, keys.hint(key), tx.now)
    await keeper.refuse_taken(tx, key)
    end = tx.now + wanted.overlap
    await keeper.replace(tx, found.license_id, key, product.key_storage, end)
    await store.update_license(tx, changed)
    await emit(tx, Event("license.key.rotated", found.license_id, event_data(changed), actor, wanted.reason))
    return RotatedKey(changed, key, end)
