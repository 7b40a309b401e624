"""The customer that a call names, made where it is new."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from services.license import customer_store
from services.license.customer_model import Customer
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason, not_found
from shared.ids import Prefix, new_id


class NamedBy(Enum):
    """How a customer is named; the value is the statement that finds one."""

    ID = customer_store.HOLD
    EMAIL = customer_store.HOLD_BY_EMAIL
    SUBJECT_REF = customer_store.HOLD_BY_SUBJECT


@dataclass(frozen=True, slots=True)
class CustomerName:
    """The holder of a license. An email is in lower case."""

    by: NamedBy
    value: str
    display_name: str


def new_customer(named: CustomerName, now: datetime) -> Customer:
    """The customer that is made for a license; it is named by email or subject_ref."""
    email = named.value if named.by is NamedBy.EMAIL else None
    subject_ref = named.value if named.by is NamedBy.SUBJECT_REF else None
    return Customer(new_id(Prefix.CUSTOMER), email, subject_ref, named.display_name, None, "", {}, {}, 1, now, now)


async def find_or_create_customer(tx: Transaction, named: CustomerName, actor: str) -> Customer:
    """CUSTOMER_NOT_FOUND, TRANSACTION_CONFLICT."""
    found = await customer_store.find(tx, named.by.value, named.value)
    if found is not None:
        return found
    if named.by is NamedBy.ID:
        raise not_found(Reason.CUSTOMER_NOT_FOUND, named.value)
    customer = new_customer(named, tx.now)
    if await customer_store.insert(tx, customer):
        await emit(tx, Event("customer.created", customer.customer_id, event_data(customer), actor))
        return customer
    # Another call made the same customer meanwhile, and has committed: the insert waited for it.
    found = await customer_store.find(tx, named.by.value, named.value)
    if found is None:
        raise DomainError(Reason.TRANSACTION_CONFLICT, "the customer changed meanwhile; try again")
    return found
