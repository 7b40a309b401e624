"""A policy is added to a product."""

from __future__ import annotations

from services.license import catalog_store
from services.license.catalog_model import Policy
from services.license.contradictions import refuse_contradictory
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found


async def create_policy(tx: Transaction, *, actor: str, policy: Policy) -> Policy:
    """PRODUCT_NOT_FOUND, EXTERNAL_ID_TAKEN, FIELD_INVALID."""
    if await catalog_store.hold_product(tx, policy.product_id) is None:
        raise not_found(Reason.PRODUCT_NOT_FOUND, policy.product_id)
    refuse_contradictory(policy.terms)
    await catalog_store.insert_policy(tx, policy)
    await emit(tx, Event("policy.created", policy.policy_id, event_data(policy), actor))
    return policy
