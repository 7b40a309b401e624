"""Every SQL statement on tiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from services.license.catalog_model import Tier
from services.license.errors import in_use
from shared.db import statements
from shared.db.pool import Transaction

_TABLE: Final = "license.tier"
_COLUMNS: Final = (
    "tier_id", "external_id", "product_id", "slug", "display_name", "position", "labels", "metadata", "revision",
    "created_at", "updated_at",
)  # fmt: skip

INSERT: Final = statements.insert(_TABLE, _COLUMNS)
GET: Final = statements.select(_TABLE, _COLUMNS, "tier_id = $3")
GET_BY_EXTERNAL_ID: Final = statements.select(_TABLE, _COLUMNS, "external_id = $3")
LOCK: Final = GET + " FOR UPDATE"
HOLD: Final = GET + " FOR KEY SHARE"
HOLD_MANY: Final = statements.select(_TABLE, _COLUMNS, "tier_id = ANY ($3)") + statements.HOLD_IN_ORDER
HOLD_MANY_BY_SLUG: Final = (
    statements.select(_TABLE, _COLUMNS, "product_id = ANY ($3)", "slug = ANY ($4)") + statements.HOLD_IN_ORDER
)
PAGE: Final = statements.page(_TABLE, _COLUMNS, "tier_id")
PAGE_OF_A_PRODUCT: Final = statements.page(_TABLE, _COLUMNS, "tier_id", "product_id = $5")
UPDATE: Final = statements.update(_TABLE, "tier_id", _COLUMNS[1:])
DELETE: Final = "DELETE FROM license.tier WHERE account_id = $1 AND mode = $2 AND tier_id = $3"


def _tier(row: asyncpg.Record | None) -> Tier | None:
    return None if row is None else Tier(**row)


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


def _values(tier: Tier) -> tuple[Any, ...]:
    return (
        tier.tier_id, tier.external_id, tier.product_id, tier.slug, tier.display_name, tier.position, dict(tier.labels),
        dict(tier.metadata), tier.revision, tier.created_at, tier.updated_at,
    )  # fmt: skip


async def insert(tx: Transaction, tier: Tier) -> None:
    await tx.conn.execute(INSERT, *_in_tenant(tx, *_values(tier)))


async def get(tx: Transaction, tier_id: str) -> Tier | None:
    return _tier(await tx.conn.fetchrow(GET, *_in_tenant(tx, tier_id)))


async def get_by_external_id(tx: Transaction, external_id: str) -> Tier | None:
    return _tier(await tx.conn.fetchrow(GET_BY_EXTERNAL_ID, *_in_tenant(tx, external_id)))


async def lock(tx: Transaction, tier_id: str) -> Tier | None:
    return _tier(await tx.conn.fetchrow(LOCK, *_in_tenant(tx, tier_id)))


async def hold(tx: Transaction, tier_id: str) -> Tier | None:
    """The tier, which nobody can delete until this transaction ends."""
    return _tier(await tx.conn.fetchrow(HOLD, *_in_tenant(tx, tier_id)))


async def hold_many(
    tx: Transaction, tier_ids: Sequence[str], product_ids: Sequence[str], slugs: Sequence[str]
) -> Sequence[Tier]:
    """The tiers with these ids, and those of these products with one of these slugs; nobody can delete them until this
    transaction ends."""
    rows = [
        *await tx.conn.fetch(HOLD_MANY, *_in_tenant(tx, tier_ids)),
        *await tx.conn.fetch(HOLD_MANY_BY_SLUG, *_in_tenant(tx, product_ids, slugs)),
    ]
    return [Tier(**row) for row in rows]


async def page(tx: Transaction, after: str, limit: int, product_id: str) -> Sequence[Tier]:
    """A page; of one product where `product_id` is not empty."""
    if product_id:
        rows = await tx.conn.fetch(PAGE_OF_A_PRODUCT, *_in_tenant(tx, after, limit, product_id))
    else:
        rows = await tx.conn.fetch(PAGE, *_in_tenant(tx, after, limit))
    return [Tier(**row) for row in rows]


async def update(tx: Transaction, tier: Tier) -> None:
    await tx.conn.execute(UPDATE, *_in_tenant(tx, *_values(tier)))


async def delete(tx: Transaction, tier_id: str) -> None:
    """RESOURCE_IN_USE while a license has it."""
    try:
        await tx.conn.execute(DELETE, *_in_tenant(tx, tier_id))
    except asyncpg.ForeignKeyViolationError as error:
        raise in_use(tier_id, "license") from error
