"""A customer is banned, or no longer: one row, whatever the number of its licenses."""

from __future__ import annotations

from typing import Final

from services.license import customer_store
from services.license.customer_model import Customer, CustomerAction, change_ban
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale

_EVENTS: Final = {CustomerAction.BAN: "customer.banned", CustomerAction.UNBAN: "customer.unbanned"}


async def change_customer_ban(
    tx: Transaction, action: CustomerAction, *, actor: str, customer_id: str, etag: str, reason: str
) -> Customer:
    """CUSTOMER_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID."""
    found = await customer_store.lock(tx, customer_id)
    if found is None:
        raise not_found(Reason.CUSTOMER_NOT_FOUND, customer_id)
    refuse_stale(etag, found.revision, customer_id)
    changed = change_ban(found, action, reason, tx.now)
    await customer_store.update(tx, changed)
    await emit(tx, Event(_EVENTS[action], customer_id, event_data(changed), actor, reason))
    return changed
