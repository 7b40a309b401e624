"""A lease is made to last longer, without holding the seats of the license: who has a seat never waits for who takes one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.machine import seat_store, store, terms_store
from services.machine.leases import lease_end, refuse_lost
from services.machine.model import Machine
from services.machine.terms import refuse_unusable
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def renew_seat(tx: Transaction, *, machine_id: str, epoch: int, ttl: timedelta) -> Machine:
    """MACHINE_NOT_FOUND, LICENSE_NOT_FOUND, SEAT_LOST, STATE_TRANSITION_INVALID, CUSTOMER_BANNED.

    Whoever takes the seat away writes the beat as well, and so waits for this, or is seen by it.
    """
    found = await store.hold_beat(tx, machine_id)
    if found is None:
        raise not_found(Reason.MACHINE_NOT_FOUND, machine_id)
    refuse_lost(found, epoch, tx.now)
    terms = await terms_store.terms_of(tx, found.license_id)
    if terms is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, found.license_id)
    seats = await seat_store.get_seats(tx, found.license_id)
    refuse_unusable(terms, "lease", tx.now, seats.first_activated_at)
    ends = lease_end(terms, seats.first_activated_at, tx.now, ttl)
    renewed = replace(found, lease_expires_at=ends, last_heartbeat_at=tx.now)
    await store.update_beat(tx, renewed)
    return renewed
