"""A product that no policy and no tier uses is deleted."""

from __future__ import annotations

from services.license import catalog_store
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def delete_product(tx: Transaction, *, actor: str, product_id: str, etag: str, reason: str) -> None:
    """PRODUCT_NOT_FOUND, ETAG_MISMATCH, RESOURCE_IN_USE."""
    found = await catalog_store.lock_product(tx, product_id)
    if found is None:
        raise not_found(Reason.PRODUCT_NOT_FOUND, product_id)
    refuse_stale(etag, found.revision, product_id)
    await catalog_store.delete_product(tx, product_id)
    await emit(tx, Event("product.deleted", product_id, event_data(found), actor, reason))
