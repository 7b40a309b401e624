"""Refusals that are told as events: the transaction of the call is undone by then, and so they have one of their own."""

from __future__ import annotations

from services.machine.commands.take_seat import NoSeatError
from services.machine.events import no_place_event, refusal_event
from services.machine.processes import NoPlaceError
from services.machine.resources import Resources
from shared.db.outbox import emit
from shared.tenancy import Principal


async def tell_refusal(r: Resources, principal: Principal, license_id: str, refusal: NoSeatError) -> None:
    """A machine found no seat."""
    limit, allowed = refusal.metadata["limit"], int(refusal.metadata["allowed"])
    async with r.db.transaction(principal.tenant) as tx:
        await emit(tx, refusal_event(license_id, limit, allowed, refusal.seats, principal.key_id))


async def tell_no_place(r: Resources, principal: Principal, refusal: NoPlaceError) -> None:
    """A process found no place."""
    async with r.db.transaction(principal.tenant) as tx:
        await emit(tx, no_place_event(refusal, principal.key_id))
