"""What is said about a customer changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.license import customer_store
from services.license.customer_model import Customer, update
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def update_customer(
    tx: Transaction, *, actor: str, customer_id: str, etag: str, changes: Mapping[str, Any]
) -> Customer:
    """CUSTOMER_NOT_FOUND, ETAG_MISMATCH, CUSTOMER_TAKEN, FIELD_INVALID."""
    found = await customer_store.lock(tx, customer_id)
    if found is None:
        raise not_found(Reason.CUSTOMER_NOT_FOUND, customer_id)
    refuse_stale(etag, found.revision, customer_id)
    changed = update(found, changes, tx.now)
    await customer_store.update(tx, changed)
    await emit(tx, Event("customer.updated", customer_id, event_data(changed), actor))
    return changed
