"""A customer gets a session, to look after its own licenses for a while."""

from __future__ import annotations

from datetime import timedelta

from services.license import customer_session_store, customer_store
from services.license.customer_model import refuse_banned
from services.license.customer_session_model import CustomerSession, NewSession
from services.license.events import event_data
from shared.crypto import api_keys
from shared.crypto.hashing import SecretHasher
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix, new_id


async def create_customer_session(
    tx: Transaction, hasher: SecretHasher, *, actor: str, customer_id: str, ttl: timedelta, reason: str
) -> NewSession:
    """CUSTOMER_NOT_FOUND, CUSTOMER_BANNED."""
    # Held: a ban, or an end of all sessions, that comes meanwhile waits, and then finds this session.
    customer = await customer_store.find(tx, customer_store.HOLD, customer_id)
    if customer is None:
        raise not_found(Reason.CUSTOMER_NOT_FOUND, customer_id)
    refuse_banned(customer)
    token = api_keys.generate(api_keys.session_prefix(tx.tenant.mode))
    session = CustomerSession(new_id(Prefix.CUSTOMER_SESSION), customer_id, tx.now, tx.now + ttl)
    await customer_session_store.insert(tx, session, hasher.hash(token))
    await emit(tx, Event("customer.session.created", customer_id, event_data(session), actor, reason))
    return NewSession(session, token)
