"""What a valid validation changes: the first anchors an expiry that waited for it, and each may count as a use."""

from __future__ import annotations

from services.license import store
from services.license.commands.change_uses import UsesChange, apply_uses
from services.license.events import event_data
from services.license.model import Action, License, Status
from services.license.terms import ExpirationBasis, UsesCounting
from services.license.transitions import anchored_by
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason

_REASON = "validation"


class ChangedMeanwhileError(Exception):
    """The license is gone, or is no longer in a state in which it was valid."""


async def record_validation(tx: Transaction, *, actor: str, license_id: str) -> License | None:
    """The license after it; None where it has no use left. ChangedMeanwhileError: decide anew."""
    found = await store.lock_license(tx, license_id)
    if found is None or found.status_in_use_at(tx.now) is not Status.ACTIVE:
        raise ChangedMeanwhileError
    counted = found
    if found.terms.uses_counted_by is UsesCounting.VALIDATION and found.max_uses is not None:
        try:
            wanted = UsesChange(Action.INCREMENT_USES, license_id, 1, _REASON)
            counted = await apply_uses(tx, actor=actor, found=found, wanted=wanted)
        except DomainError as error:
            if error.reason is Reason.INSUFFICIENT_USAGE:
                return None
            raise
    # Last, since a validation that has no use left for itself anchors nothing.
    changed = anchored_by(counted, ExpirationBasis.FROM_FIRST_VALIDATION, tx.now)
    if changed.revision != counted.revision:
        await store.update_license(tx, changed)
        await emit(tx, Event("license.updated", license_id, event_data(changed), actor, "first validation"))
    return changed
