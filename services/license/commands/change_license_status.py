"""A license is suspended, reinstated, renewed, revoked or banned: one table of states decides them all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from services.license import catalog_store, store
from services.license.events import event_data
from services.license.model import Action, License, change_status, refuse_stale, reinstate, renew
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found

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
    changed = await _decide(tx, found, wanted)
    await store.update_license(tx, changed)
    await emit(tx, Event(_EVENTS[wanted.action], found.license_id, event_data(changed), actor, wanted.reason))
    return changed


async def _decide(tx: Transaction, found: License, wanted: StatusChange) -> License:
    match wanted.action:
        case Action.SUSPEND | Action.REVOKE | Action.BAN:
            return change_status(found, wanted.action, wanted.reason, tx.now)
        case Action.REINSTATE:
            return reinstate(found, wanted.expires_at, tx.now)
        case Action.RENEW:
            policy = await catalog_store.get_policy(tx, found.policy_id)
            return renew(found, None if policy is None else policy.duration, tx.now)
        case Action.CHANGE_TIER | Action.UPDATE | Action.ROTATE_KEY | Action.DELETE:
            raise ValueError(f"{wanted.action} is not a change of status")
        case _:
            assert_never(wanted.action)
