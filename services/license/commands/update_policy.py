"""A policy's terms change, for every license under it at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.license import activation_store, catalog_store
from services.license.catalog_model import Policy
from services.license.contradictions import refuse_contradictory, refuse_stricter_uniqueness
from services.license.events import event_data
from services.license.terms import Terms, check_in_since, refuse_unconfirmed
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


@dataclass(frozen=True, slots=True)
class PolicyChanges:
    """What changes: `terms` makes the new terms of the old ones, `others` are fields of the policy itself."""

    terms: Callable[[Terms], Terms]
    others: Mapping[str, Any]


async def update_policy(
    tx: Transaction, *, actor: str, policy_id: str, etag: str, changes: PolicyChanges, unlimited_confirmed: bool
) -> Policy:
    """POLICY_NOT_FOUND, ETAG_MISMATCH, UNLIMITED_NOT_CONFIRMED, EXTERNAL_ID_TAKEN, FIELD_INVALID,
    POLICY_INCOMPATIBLE."""
    found = await catalog_store.lock_policy(tx, policy_id)
    if found is None:
        raise not_found(Reason.POLICY_NOT_FOUND, policy_id)
    refuse_stale(etag, found.revision, policy_id)
    terms = changes.terms(found.terms)
    if terms.max_machines != found.terms.max_machines:
        refuse_unconfirmed(terms.max_machines, confirmed=unlimited_confirmed)
    refuse_contradictory(terms)
    if terms.machine_uniqueness is not found.terms.machine_uniqueness:
        any_machines = await activation_store.any_under_policy(tx, policy_id)
        refuse_stricter_uniqueness(found.terms, terms, policy_id, moves=False, any_machines=any_machines)
    since = check_in_since(terms, found.terms, found.check_in_since, tx.now)
    changed = replace(
        found, **changes.others, terms=terms, check_in_since=since, revision=found.revision + 1, updated_at=tx.now
    )
    await catalog_store.update_policy(tx, changed)
    await emit(tx, Event("policy.updated", policy_id, event_data(changed), actor))
    return changed
