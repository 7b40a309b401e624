"""A license is issued: its customer where the customer is new, its key, and the license."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from services.license import catalog_store, customer_store, keys, store
from services.license.catalog_model import Policy
from services.license.commands.change_tier import tier_for
from services.license.customer_model import Customer, refuse_banned
from services.license.events import event_data
from services.license.key_keeper import KeyKeeper
from services.license.model import License, Status, first_expiry, refuse_empty_period
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason, not_found
from shared.ids import Prefix, new_id


class NamedBy(Enum):
    """How a customer is named; the value is the statement that finds one."""

    ID = customer_store.HOLD
    EMAIL = customer_store.HOLD_BY_EMAIL
    SUBJECT_REF = customer_store.HOLD_BY_SUBJECT


@dataclass(frozen=True, slots=True)
class CustomerName:
    """The holder of a new license. An email is in lower case."""

    by: NamedBy
    value: str
    display_name: str


@dataclass(frozen=True, slots=True)
class NewLicense:
    """What a new license is to be. `key` None means that one is generated; `product_id` empty means the policy's,
    `tier_id` empty none."""

    policy_id: str
    product_id: str
    tier_id: str
    customer: CustomerName | None
    key: str | None
    external_id: str | None
    display_name: str
    starts_at: datetime | None
    expires_at: datetime | None
    labels: Mapping[str, str]
    metadata: Mapping[str, Any]


async def create_license(tx: Transaction, keeper: KeyKeeper, *, actor: str, wanted: NewLicense) -> tuple[License, str]:
    """The license and its key. PRODUCT_, POLICY_, TIER_ and CUSTOMER_NOT_FOUND, POLICY_INCOMPATIBLE, CUSTOMER_BANNED,
    KEY_TAKEN, EXTERNAL_ID_TAKEN, FIELD_INVALID, KEY_STORAGE_UNAVAILABLE."""
    policy = await _policy(tx, wanted)
    product = await catalog_store.hold_product(tx, policy.product_id)
    if product is None:
        raise not_found(Reason.PRODUCT_NOT_FOUND, policy.product_id)
    tier = await tier_for(tx, wanted.tier_id, product.product_id)
    customer = None if wanted.customer is None else await _customer(tx, wanted.customer, actor)
    if customer is not None:
        refuse_banned(customer)
    key = wanted.key or keys.generate(product.code)
    await keeper.refuse_taken(tx, key)
    expires_at = wanted.expires_at or first_expiry(tx.now, wanted.starts_at, policy.duration)
    refuse_empty_period(wanted.starts_at or tx.now, expires_at)
    license_ = License(
        new_id(Prefix.LICENSE), wanted.external_id, product.product_id, policy.policy_id,
        None if tier is None else tier.tier_id, None if customer is None else customer.customer_id, wanted.display_name,
        Status.ACTIVE, "", keys.hint(key), wanted.starts_at, expires_at, wanted.labels, wanted.metadata, 1, tx.now, tx.now,
    )  # fmt: skip
    await store.insert_license(tx, license_)
    await keeper.keep(tx, license_.license_id, key, product.key_storage)
    await emit(tx, Event("license.created", license_.license_id, event_data(license_), actor))
    return license_, key


async def _policy(tx: Transaction, wanted: NewLicense) -> Policy:
    policy = await catalog_store.hold_policy(tx, wanted.policy_id)
    if policy is None:
        raise not_found(Reason.POLICY_NOT_FOUND, wanted.policy_id)
    if wanted.product_id and wanted.product_id != policy.product_id:
        if await catalog_store.get_product(tx, wanted.product_id) is None:
            raise not_found(Reason.PRODUCT_NOT_FOUND, wanted.product_id)
        raise DomainError(
            Reason.POLICY_INCOMPATIBLE, "the policy belongs to another product", metadata={"policyId": policy.policy_id}
        )
    return policy


async def _customer(tx: Transaction, named: CustomerName, actor: str) -> Customer:
    found = await customer_store.find(tx, named.by.value, named.value)
    if found is not None:
        return found
    if named.by is NamedBy.ID:
        raise not_found(Reason.CUSTOMER_NOT_FOUND, named.value)
    email = named.value if named.by is NamedBy.EMAIL else None
    subject_ref = named.value if named.by is NamedBy.SUBJECT_REF else None
    customer = Customer(
        new_id(Prefix.CUSTOMER), email, subject_ref, named.display_name, None, "", {}, {}, 1, tx.now, tx.now
    )
    if await customer_store.insert(tx, customer):
        await emit(tx, Event("customer.created", customer.customer_id, event_data(customer), actor))
        return customer
    # Another call made the same customer meanwhile, and has committed: the insert waited for it.
    found = await customer_store.find(tx, named.by.value, named.value)
    if found is None:
        raise DomainError(Reason.TRANSACTION_CONFLICT, "the customer changed meanwhile; try again")
    return found
