"""What is said about a machine changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.machine import seat_store, store, terms_store
from services.machine.commands.find_machine import find_machine
from services.machine.commands.take_seat import NoSeatError
from services.machine.events import machine_event
from services.machine.model import Machine, updated
from services.machine.seats import exceeded, refuse_full, refuse_nobody, taking
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def update_machine(
    tx: Transaction, *, actor: str, machine_id: str, etag: str, changes: Mapping[str, Any]
) -> tuple[Machine, Terms | None]:
    """MACHINE_NOT_FOUND, CUSTOMER_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID, MACHINE_LIMIT_EXCEEDED, FIELD_INVALID,
    EXTERNAL_ID_TAKEN."""
    found, terms = await find_machine(tx, machine_id, etag)
    changed = updated(found, changes, tx.now, terms)
    user_id = changed.user_id
    if user_id is not None and user_id != found.user_id and not await terms_store.is_customer(tx, user_id):
        raise not_found(Reason.CUSTOMER_NOT_FOUND, user_id)
    if terms is not None:
        refuse_nobody(terms, user_id)
        seats = await seat_store.get_seats(tx, found.license_id)
        of_user = 0 if user_id is None else await seat_store.count_of_user(tx, found.license_id, user_id)
        others = of_user - int(user_id == found.user_id)
        full = exceeded(terms, taking(seats, changed, found, others), seats)
        if full is not None:
            raise NoSeatError(refuse_full(found.license_id, *full), seats)
    await store.update_machine(tx, changed)
    await emit(tx, machine_event("machine.updated", changed, actor))
    return changed, terms
