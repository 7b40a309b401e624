"""A machine loses its seat: it gives it up, who holds the license frees it, or the vendor."""

from __future__ import annotations

from dataclasses import dataclass

from services.machine import store
from services.machine.commands.find_machine import find_machine
from services.machine.commands.tell_death import tell_death
from services.machine.events import gone_event
from services.machine.model import Action, DeactivationReason, Machine, deactivated, refuse_unless_allowed
from services.machine.terms import Terms
from shared.db.outbox import emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason
from shared.rpc.auth import not_for
from shared.tenancy import Principal

_BY_HOLDER = frozenset({DeactivationReason.SELF, DeactivationReason.CUSTOMER})


@dataclass(frozen=True, slots=True)
class Deactivation:
    """What is asked, and by whom."""

    machine_id: str
    why: DeactivationReason
    etag: str = ""
    reason: str = ""


async def deactivate_machine(
    tx: Transaction, principal: Principal, wanted: Deactivation
) -> tuple[Machine, Terms | None]:
    """The machine as it is then, and what it lived under. MACHINE_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID,
    TRANSFER_LIMIT_EXCEEDED, CALLER_NOT_ALLOWED."""
    found, terms = await find_machine(tx, wanted.machine_id, wanted.etag)
    refuse_unless_allowed(found, Action.DEACTIVATE, tx.now, terms)
    if wanted.why is DeactivationReason.CUSTOMER and (terms is None or terms.protected):
        raise not_for(principal, "the license's policy is protected: the vendor alone frees its machines")
    if wanted.why in _BY_HOLDER and terms is not None and not terms.floating:
        await refuse_too_many(tx, terms)
    found = await tell_death(tx, principal.key_id, found, terms)
    gone = deactivated(found, Action.DEACTIVATE, wanted.why, tx.now, terms)
    await store.update_machine(tx, gone)
    await emit(tx, gone_event(gone, principal.key_id, wanted.reason))
    return gone, terms


async def refuse_too_many(tx: Transaction, terms: Terms) -> None:
    """TRANSFER_LIMIT_EXCEEDED where machines of the license were given up or passed on as often as its policy allows."""
    most = terms.max_transfers
    if most is not None and await store.given_up(tx, terms.license_id, terms.transfer_period) >= most:
        raise DomainError(
            Reason.TRANSFER_LIMIT_EXCEEDED,
            f"{most} machines of the license were given up or passed on within {terms.transfer_period}",
            metadata={"id": terms.license_id, "allowed": str(most)},
        )
