"""A product's fields change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.license import catalog_store
from services.license.catalog_model import Product
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def update_product(
    tx: Transaction, *, actor: str, product_id: str, etag: str, changes: Mapping[str, Any]
) -> Product:
    """PRODUCT_NOT_FOUND, ETAG_MISMATCH, EXTERNAL_ID_TAKEN, CODE_TAKEN."""
    found = await catalog_store.lock_product(tx, product_id)
    if found is None:
        raise not_found(Reason.PRODUCT_NOT_FOUND, product_id)
    refuse_stale(etag, found.revision, product_id)
    changed = replace(found, **changes, revision=found.revision + 1, updated_at=tx.now)
    await catalog_store.update_product(tx, changed)
    await emit(tx, Event("product.updated", product_id, event_data(changed), actor))
    return changed
