"""A license is issued: its customer where the customer is new, its key, and the license."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.license import catalog_store, keys, store
from services.license.catalog_model import Policy, Tier
from services.license.commands.change_tier import tier_for
from services.license.commands.find_customer import CustomerName, find_or_create_customer
from services.license.customer_model import Customer, refuse_banned
from services.license.events import event_data
from services.license.key_keeper import KeyKeeper
from services.license.model import License, Status
from services.license.periods import first_expiry, starts_counting_at_once
from services.license.terms import Overrides, refuse_not_overridable
from services.license.transitions import refuse_empty_period
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason, not_found
from shared.ids import Prefix, new_id


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
    overrides: Overrides
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
    customer = None if wanted.customer is None else await find_or_create_customer(tx, wanted.customer, actor)
    key = wanted.key or keys.generate(product.code)
    await keeper.refuse_taken(tx, key)
    license_ = license_of(wanted, policy, tier=tier, customer=customer, key=key, now=tx.now)
    await store.insert_license(tx, license_)
    await keeper.keep(tx, license_.license_id, key, product.key_storage)
    await emit(tx, Event("license.created", license_.license_id, event_data(license_), actor))
    return license_, key


def license_of(
    wanted: NewLicense, policy: Policy, *, tier: Tier | None, customer: Customer | None, key: str, now: datetime
) -> License:
    """What a new license is, from what it is made of. FIELD_INVALID, CUSTOMER_BANNED, POLICY_INCOMPATIBLE."""
    if customer is not None:
        refuse_banned(customer)
    expires_at = wanted.expires_at or first_expiry(policy.terms, wanted.starts_at, now)
    refuse_empty_period(wanted.starts_at or now, expires_at)
    refuse_not_overridable(wanted.overrides, policy.terms, policy.policy_id)
    anchored = wanted.expires_at is not None or starts_counting_at_once(policy.terms)
    return License(
        new_id(Prefix.LICENSE), wanted.external_id, policy.product_id, policy.policy_id,
        None if tier is None else tier.tier_id, None if customer is None else customer.customer_id, wanted.display_name,
        Status.ACTIVE, "", keys.hint(key), wanted.starts_at, expires_at, now if anchored else None,
        None, None, wanted.overrides, wanted.labels, wanted.metadata, 1, now, now, policy.terms,
        policy.check_in_since,
    )  # fmt: skip


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
