"""The machine that a write is about, held, and what it lives under."""

from __future__ import annotations

from services.machine import store, terms_store
from services.machine.model import Machine
from services.machine.terms import Terms
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


async def find_machine(tx: Transaction, machine_id: str, etag: str = "") -> tuple[Machine, Terms | None]:
    """Terms are None where the license is gone. MACHINE_NOT_FOUND, ETAG_MISMATCH."""
    machine = await store.lock_machine(tx, machine_id)
    if machine is None:
        raise not_found(Reason.MACHINE_NOT_FOUND, machine_id)
    refuse_stale(etag, machine.revision, machine_id)
    return machine, await terms_store.terms_of(tx, machine.license_id)
