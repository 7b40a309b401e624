"""A license is suspended, reinstated, renewed, revoked or banned: one table of states decides them all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.license import store
from services.license.events import event_data
from services.license.model import Action, License
from services.license.transitions import change_status, reinstate, renew
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale

_EVENTS: Final = {
    Action.SUSPEND: "license.suspended",
    Action.REINSTATE: "license.reinstated",
    Action.RENEW: "license.renewed",
    Action.REVOKE: "license.revoked",
    Action.BAN: "license.banned",
}


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What is asked. `expires_at` belongs to a reinstatement of an expired license."""

    action: Action
    license_id: str
    etag: str
    reason: str
    expires_at: datetime | None = None


async def change_license_status(tx: Transaction, *, actor: str, wanted: StatusChange) -> License:
    """LICENSE_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID, POLICY_INCOMPATIBLE, FIELD_INVALID."""
    found = await store.lock_license(tx, wanted.license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, wanted.license_id)
    refuse_stale(wanted.etag, found.revision, wanted.license_id)
    changed = _decide(found, wanted, tx.now)
    await store.update_license(tx, changed)
    await emit(tx, Event(_EVENTS[wanted.action], found.license_id, event_data(changed), actor, wanted.reason))
    return changed


def _decide(found: License, wanted: StatusChange, now: datetime) -> License:
    match wanted.action:
        case Action.SUSPEND | Action.REVOKE | Action.BAN:
            return change_status(found, wanted.action, wanted.reason, now)
        case Action.REINSTATE:
            return reinstate(found, wanted.expires_at, now)
        case Action.RENEW:
            return renew(found, now)
        case _:
            raise ValueError(f"{wanted.action} is not a change of status")
