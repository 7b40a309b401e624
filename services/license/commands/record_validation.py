"""What a valid validation changes: the first anchors an expiry that waited for it, and each may count as a use."""

from __future__ import annotations

from services.license import store
from services.license.commands.change_uses import UsesChange, apply_uses
from services.license.events import event_data
from services.license.model import Action, License
from services.license.terms import ExpirationBasis, UsesCounting
from services.license.transitions import anchored_by
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason

_REASON = "validation"


async def record_validation(tx: Transaction, *, actor: str, license_id: str) -> License | None:
    """The license after it; None where it is gone, or has no use left, or is in no state to be used."""
    found = await store.lock_license(tx, license_id)
    if found is None:
        return None
    changed = anchored_by(found, ExpirationBasis.FROM_FIRST_VALIDATION, tx.now)
    if changed.revision != found.revision:
        await store.update_license(tx, changed)
        await emit(tx, Event("license.updated", license_id, event_data(changed), actor, "first validation"))
    if changed.terms.uses_counted_by is UsesCounting.VALIDATION and changed.max_uses is not None:
        try:
            wanted = UsesChange(Action.INCREMENT_USES, license_id, 1, _REASON)
            changed = await apply_uses(tx, actor=actor, found=changed, wanted=wanted)
        except DomainError as error:
            if error.reason in {Reason.INSUFFICIENT_USAGE, Reason.STATE_TRANSITION_INVALID}:
                return None
            raise
    return changed
