"""A product is added to the catalog."""

from __future__ import annotations

from services.license import catalog_store
from services.license.catalog_model import Product
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction


async def create_product(tx: Transaction, *, actor: str, product: Product) -> Product:
    """EXTERNAL_ID_TAKEN, CODE_TAKEN (code or slug)."""
    await catalog_store.insert_product(tx, product)
    await emit(tx, Event("product.created", product.product_id, event_data(product), actor))
    return product
