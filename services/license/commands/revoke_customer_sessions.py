"""All sessions of a customer end."""

from __future__ import annotations

from services.license import customer_session_store, customer_store
from services.license.customer_session_model import EndedSessions
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def revoke_customer_sessions(tx: Transaction, *, actor: str, customer_id: str, reason: str) -> int:
    """How many have ended; none is no error, and no event. CUSTOMER_NOT_FOUND."""
    if await customer_store.lock(tx, customer_id) is None:
        raise not_found(Reason.CUSTOMER_NOT_FOUND, customer_id)
    ended = await customer_session_store.delete_of_customer(tx, customer_id)
    if ended:
        told = EndedSessions(customer_id, ended, tx.now)
        await emit(tx, Event("customer.session.revoked", customer_id, event_data(told), actor, reason))
    return len(ended)
