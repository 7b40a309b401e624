"""A license goes to another customer, or to nobody."""

from __future__ import annotations

from dataclasses import dataclass

from services.license import store
from services.license.commands.find_customer import CustomerName, find_or_create_customer
from services.license.customer_model import refuse_banned
from services.license.events import event_data
from services.license.model import License
from services.license.transitions import transfer
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is asked. `customer` None takes the license from whoever holds it."""

    license_id: str
    customer: CustomerName | None
    etag: str
    reason: str


async def transfer_license(tx: Transaction, *, actor: str, wanted: Transfer) -> License:
    """LICENSE_NOT_FOUND, CUSTOMER_NOT_FOUND, CUSTOMER_BANNED, ETAG_MISMATCH, STATE_TRANSITION_INVALID."""
    found = await store.lock_license(tx, wanted.license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, wanted.license_id)
    refuse_stale(wanted.etag, found.revision, wanted.license_id)
    customer = None if wanted.customer is None else await find_or_create_customer(tx, wanted.customer, actor)
    if customer is not None:
        refuse_banned(customer)
    changed = transfer(found, None if customer is None else customer.customer_id, tx.now)
    await store.update_license(tx, changed)
    await emit(tx, Event("license.customer.updated", found.license_id, event_data(changed), actor, wanted.reason))
    return changed
