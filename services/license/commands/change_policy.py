"""A license comes under another policy of its product."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.license import activation_store, catalog_store, store
from services.license.contradictions import refuse_stricter_uniqueness
from services.license.events import event_data
from services.license.model import License
from services.license.transitions import change_policy
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What is asked."""

    license_id: str
    policy_id: str
    etag: str
    reason: str


async def change_license_policy(tx: Transaction, *, actor: str, wanted: PolicyChange) -> License:
    """LICENSE_NOT_FOUND, POLICY_NOT_FOUND, POLICY_INCOMPATIBLE, ETAG_MISMATCH, STATE_TRANSITION_INVALID, FIELD_INVALID."""
    found = await store.lock_license(tx, wanted.license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, wanted.license_id)
    refuse_stale(wanted.etag, found.revision, wanted.license_id)
    policy = await catalog_store.hold_policy(tx, wanted.policy_id)
    if policy is None:
        raise not_found(Reason.POLICY_NOT_FOUND, wanted.policy_id)
    activation = await activation_store.get(tx, found.license_id)
    moves = policy.policy_id != found.policy_id
    refuse_stricter_uniqueness(
        found.terms, policy.terms, policy.policy_id, moves=moves, any_machines=activation.machines > 0
    )
    found = replace(found, first_activated_at=activation.first_activated_at)
    changed = change_policy(found, policy, tx.now)
    await store.update_license(tx, changed)
    await emit(tx, Event("license.policy.updated", found.license_id, event_data(changed), actor, wanted.reason))
    return changed
