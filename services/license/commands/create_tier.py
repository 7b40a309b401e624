"""A tier is added to a product."""

from __future__ import annotations

from services.license import catalog_store, tier_store
from services.license.catalog_model import Tier
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def create_tier(tx: Transaction, *, actor: str, tier: Tier) -> Tier:
    """PRODUCT_NOT_FOUND, EXTERNAL_ID_TAKEN, CODE_TAKEN (slug)."""
    if await catalog_store.hold_product(tx, tier.product_id) is None:
        raise not_found(Reason.PRODUCT_NOT_FOUND, tier.product_id)
    await tier_store.insert(tx, tier)
    await emit(tx, Event("tier.created", tier.tier_id, event_data(tier), actor))
    return tier
