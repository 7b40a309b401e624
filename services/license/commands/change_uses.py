"""Uses of a license are counted, given back or counted from 0: all that are asked for, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.license import store
from services.license.events import event_data
from services.license.model import Action, License
from services.license.terms import ExpirationBasis
from services.license.transitions import anchored_by, count_uses
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found

_EVENTS: Final = {
    Action.INCREMENT_USES: "license.usage.incremented",
    Action.DECREMENT_USES: "license.usage.decremented",
    Action.RESET_USES: "license.usage.reset",
}


@dataclass(frozen=True, slots=True)
class UsesChange:
    """What is asked. A reset has no `uses`."""

    action: Action
    license_id: str
    uses: int
    reason: str


async def change_uses(tx: Transaction, *, actor: str, wanted: UsesChange) -> License:
    """LICENSE_NOT_FOUND, INSUFFICIENT_USAGE, STATE_TRANSITION_INVALID."""
    found = await store.lock_license(tx, wanted.license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, wanted.license_id)
    return await apply_uses(tx, actor=actor, found=found, wanted=wanted)


async def apply_uses(tx: Transaction, *, actor: str, found: License, wanted: UsesChange) -> License:
    """The same for a license that this transaction has locked."""
    changed = count_uses(found, wanted.action, wanted.uses, tx.now)
    if wanted.action is Action.INCREMENT_USES:
        changed = anchored_by(changed, ExpirationBasis.FROM_FIRST_USE, tx.now)
    if changed.revision != found.revision:
        await store.update_license(tx, changed)
    await store.set_uses(tx, changed)
    data = event_data(changed, tx.now)
    await emit(tx, Event(_EVENTS[wanted.action], found.license_id, data, actor, wanted.reason))
    if wanted.action is Action.INCREMENT_USES and changed.uses == changed.max_uses:
        await emit(tx, Event("license.limit_reached", found.license_id, data, actor, wanted.reason))
    return changed
