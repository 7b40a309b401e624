"""A license gets another tier, or none."""

from __future__ import annotations

from dataclasses import dataclass

from services.license import store, tier_store
from services.license.catalog_model import Tier
from services.license.events import event_data
from services.license.model import License
from services.license.transitions import change_tier, refuse_foreign_tier
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale


@dataclass(frozen=True, slots=True)
class TierChange:
    """What is asked. An empty `tier_id` takes the tier away."""

    license_id: str
    tier_id: str
    etag: str
    reason: str


async def change_license_tier(tx: Transaction, *, actor: str, wanted: TierChange) -> License:
    """LICENSE_NOT_FOUND, TIER_NOT_FOUND, ETAG_MISMATCH, STATE_TRANSITION_INVALID, FIELD_INVALID."""
    found = await store.lock_license(tx, wanted.license_id)
    if found is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, wanted.license_id)
    refuse_stale(wanted.etag, found.revision, wanted.license_id)
    tier = await tier_for(tx, wanted.tier_id, found.product_id)
    changed = change_tier(found, None if tier is None else tier.tier_id, tx.now)
    await store.update_license(tx, changed)
    await emit(tx, Event("license.tier.updated", found.license_id, event_data(changed), actor, wanted.reason))
    return changed


async def tier_for(tx: Transaction, tier_id: str, product_id: str) -> Tier | None:
    """The tier, which nobody can delete until this transaction ends; None where none is named. TIER_NOT_FOUND, FIELD_INVALID."""
    if not tier_id:
        return None
    tier = await tier_store.hold(tx, tier_id)
    if tier is None:
        raise not_found(Reason.TIER_NOT_FOUND, tier_id)
    refuse_foreign_tier(tier.product_id, product_id)
    return tier
