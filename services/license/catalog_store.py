"""Every SQL statement on products and policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from services.license.catalog_model import KeyStorage, Policy, Product
from services.license.errors import in_use
from services.license.terms import Template
from services.license.terms_rows import TERMS, terms_of
from shared.db import statements
from shared.db.pool import Transaction

_PRODUCT: Final = (
    "product_id", "external_id", "code", "slug", "display_name", "url", "key_storage", "labels", "metadata", "revision",
    "created_at", "updated_at",
)  # fmt: skip
_POLICY: Final = (
    "policy_id", "external_id", "product_id", "display_name", "template", *TERMS, "check_in_since", "labels", "metadata",
    "revision", "created_at", "updated_at",
)  # fmt: skip

INSERT_PRODUCT: Final = statements.insert("license.product", _PRODUCT)
GET_PRODUCT: Final = statements.select("license.product", _PRODUCT, "product_id = $3")
GET_PRODUCT_BY_EXTERNAL_ID: Final = statements.select("license.product", _PRODUCT, "external_id = $3")
LOCK_PRODUCT: Final = GET_PRODUCT + " FOR UPDATE"
HOLD_PRODUCT: Final = GET_PRODUCT + " FOR KEY SHARE"
PAGE_OF_PRODUCTS: Final = statements.page("license.product", _PRODUCT, "product_id")
HOLD_PRODUCTS: Final = (
    statements.select("license.product", _PRODUCT, "product_id = ANY ($3)") + statements.HOLD_IN_ORDER
)
COUNT_SEALED_PRODUCTS: Final = statements.select("license.product", ("count(*)",), "key_storage = 'SEALED'")
UPDATE_PRODUCT: Final = statements.update("license.product", "product_id", _PRODUCT[1:])
DELETE_PRODUCT: Final = "DELETE FROM license.product WHERE account_id = $1 AND mode = $2 AND product_id = $3"
INSERT_POLICY: Final = statements.insert("license.policy", _POLICY)
GET_POLICY: Final = statements.select("license.policy", _POLICY, "policy_id = $3")
GET_POLICY_BY_EXTERNAL_ID: Final = statements.select("license.policy", _POLICY, "external_id = $3")
LOCK_POLICY: Final = GET_POLICY + " FOR UPDATE"
HOLD_POLICY: Final = GET_POLICY + " FOR KEY SHARE"
HOLD_POLICIES: Final = statements.select("license.policy", _POLICY, "policy_id = ANY ($3)") + statements.HOLD_IN_ORDER
HOLD_POLICIES_BY_EXTERNAL_ID: Final = (
    statements.select("license.policy", _POLICY, "external_id = ANY ($3)") + statements.HOLD_IN_ORDER
)
PAGE_OF_POLICIES: Final = statements.page("license.policy", _POLICY, "policy_id")
PAGE_OF_PRODUCTS_POLICIES: Final = statements.page("license.policy", _POLICY, "policy_id", "product_id = $5")
UPDATE_POLICY: Final = statements.update("license.policy", "policy_id", _POLICY[1:])
DELETE_POLICY: Final = "DELETE FROM license.policy WHERE account_id = $1 AND mode = $2 AND policy_id = $3"


def _product(row: asyncpg.Record | None) -> Product | None:
    if row is None:
        return None
    values: dict[str, Any] = dict(row)
    values["key_storage"] = KeyStorage(values["key_storage"])
    return Product(**values)


def _policy(row: asyncpg.Record | None) -> Policy | None:
    if row is None:
        return None
    values = {name: value for name, value in row.items() if name not in TERMS}
    values["template"] = Template(values["template"])
    return Policy(**values, terms=terms_of(row))


def _in_tenant(tx: Transaction, *values: object) -> tuple[object, ...]:
    return (tx.tenant.account_id, tx.tenant.mode.value, *values)


def _product_values(product: Product) -> tuple[Any, ...]:
    return (
        product.product_id, product.external_id, product.code, product.slug, product.display_name, product.url,
        product.key_storage.value, dict(product.labels), dict(product.metadata), product.revision, product.created_at,
        product.updated_at,
    )  # fmt: skip


def _policy_values(policy: Policy) -> tuple[Any, ...]:
    return (
        policy.policy_id, policy.external_id, policy.product_id, policy.display_name, policy.template.value,
        *(getattr(policy.terms, name) for name in TERMS), policy.check_in_since, dict(policy.labels), dict(policy.metadata),
        policy.revision, policy.created_at, policy.updated_at,
    )  # fmt: skip


async def insert_product(tx: Transaction, product: Product) -> None:
    await tx.conn.execute(INSERT_PRODUCT, *_in_tenant(tx, *_product_values(product)))


async def get_product(tx: Transaction, product_id: str) -> Product | None:
    return _product(await tx.conn.fetchrow(GET_PRODUCT, *_in_tenant(tx, product_id)))


async def get_product_by_external_id(tx: Transaction, external_id: str) -> Product | None:
    return _product(await tx.conn.fetchrow(GET_PRODUCT_BY_EXTERNAL_ID, *_in_tenant(tx, external_id)))


async def lock_product(tx: Transaction, product_id: str) -> Product | None:
    return _product(await tx.conn.fetchrow(LOCK_PRODUCT, *_in_tenant(tx, product_id)))


async def hold_product(tx: Transaction, product_id: str) -> Product | None:
    """The product, which nobody can delete until this transaction ends."""
    return _product(await tx.conn.fetchrow(HOLD_PRODUCT, *_in_tenant(tx, product_id)))


async def hold_products(tx: Transaction, product_ids: Sequence[str]) -> Sequence[Product]:
    """Those that there are, which nobody can delete until this transaction ends."""
    rows = await tx.conn.fetch(HOLD_PRODUCTS, *_in_tenant(tx, product_ids))
    return [found for row in rows if (found := _product(row)) is not None]


async def count_sealed_products(tx: Transaction) -> int:
    """How many products keep their license keys."""
    return await tx.conn.fetchval(COUNT_SEALED_PRODUCTS, *_in_tenant(tx))


async def page_of_products(tx: Transaction, after: str, limit: int) -> Sequence[Product]:
    rows = await tx.conn.fetch(PAGE_OF_PRODUCTS, *_in_tenant(tx, after, limit))
    return [found for row in rows if (found := _product(row)) is not None]


async def update_product(tx: Transaction, product: Product) -> None:
    first, *rest = _product_values(product)
    await tx.conn.execute(UPDATE_PRODUCT, *_in_tenant(tx, first, *rest))


async def delete_product(tx: Transaction, product_id: str) -> None:
    """RESOURCE_IN_USE while a policy or a tier belongs to it."""
    try:
        await tx.conn.execute(DELETE_PRODUCT, *_in_tenant(tx, product_id))
    except asyncpg.ForeignKeyViolationError as error:
        raise in_use(product_id, "tier" if error.constraint_name == "tier_product" else "policy") from error


async def insert_policy(tx: Transaction, policy: Policy) -> None:
    await tx.conn.execute(INSERT_POLICY, *_in_tenant(tx, *_policy_values(policy)))


async def get_policy(tx: Transaction, policy_id: str) -> Policy | None:
    return _policy(await tx.conn.fetchrow(GET_POLICY, *_in_tenant(tx, policy_id)))


async def get_policy_by_external_id(tx: Transaction, external_id: str) -> Policy | None:
    return _policy(await tx.conn.fetchrow(GET_POLICY_BY_EXTERNAL_ID, *_in_tenant(tx, external_id)))


async def lock_policy(tx: Transaction, policy_id: str) -> Policy | None:
    return _policy(await tx.conn.fetchrow(LOCK_POLICY, *_in_tenant(tx, policy_id)))


async def hold_policy(tx: Transaction, policy_id: str) -> Policy | None:
    """The policy, which nobody can delete until this transaction ends."""
    return _policy(await tx.conn.fetchrow(HOLD_POLICY, *_in_tenant(tx, policy_id)))


async def hold_policies(tx: Transaction, policy_ids: Sequence[str], external_ids: Sequence[str]) -> Sequence[Policy]:
    """Those that there are, by id and by external id, which nobody can delete until this transaction ends."""
    rows = [
        *await tx.conn.fetch(HOLD_POLICIES, *_in_tenant(tx, policy_ids)),
        *await tx.conn.fetch(HOLD_POLICIES_BY_EXTERNAL_ID, *_in_tenant(tx, external_ids)),
    ]
    return [found for row in rows if (found := _policy(row)) is not None]


async def page_of_policies(tx: Transaction, after: str, limit: int, product_id: str) -> Sequence[Policy]:
    """A page; of one product where `product_id` is not empty."""
    if product_id:
        rows = await tx.conn.fetch(PAGE_OF_PRODUCTS_POLICIES, *_in_tenant(tx, after, limit, product_id))
    else:
        rows = await tx.conn.fetch(PAGE_OF_POLICIES, *_in_tenant(tx, after, limit))
    return [found for row in rows if (found := _policy(row)) is not None]


async def update_policy(tx: Transaction, policy: Policy) -> None:
    first, *rest = _policy_values(policy)
    await tx.conn.execute(UPDATE_POLICY, *_in_tenant(tx, first, *rest))


async def delete_policy(tx: Transaction, policy_id: str) -> None:
    """RESOURCE_IN_USE while a license is under it."""
    try:
        await tx.conn.execute(DELETE_POLICY, *_in_tenant(tx, policy_id))
    except asyncpg.ForeignKeyViolationError as error:
        raise in_use(policy_id, "license") from error
