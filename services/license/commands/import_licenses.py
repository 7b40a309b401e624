"""Licenses from elsewhere are taken in: a batch, all or none, in as many statements for one as for a thousand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.license import catalog_store, customer_store, keys, store, tier_store
from services.license.commands.find_customer import NamedBy
from services.license.customer_model import Customer, refuse_banned
from services.license.events import event_data
from services.license.import_model import ImportItem, Known, Made, Plan, Planner
from services.license.key_keeper import KeyKeeper
from services.license.model import License
from shared.db.outbox import Event, emit_many
from shared.db.pool import Transaction
from shared.errors import DomainError, FieldViolation, Reason, fields_invalid


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item. `key` is empty unless it was generated."""

    license_id: str
    key: str
    already_there: bool


async def plan_import(tx: Transaction, keeper: KeyKeeper, items: Sequence[ImportItem | None]) -> Plan:
    """What would become of the items; stores nothing. KEY_STORAGE_UNAVAILABLE."""
    known = await _known(tx, keeper, [item for item in items if item is not None])
    plan = await asyncio.to_thread(Planner(known, tx.now).plan, items)
    for storage in {made.product.key_storage for made in plan.outcomes if isinstance(made, Made)}:
        keeper.refuse_unless_possible(storage)
    return plan


async def import_licenses(
    tx: Transaction,
    keeper: KeyKeeper,
    *,
    actor: str,
    items: Sequence[ImportItem | None],
    bad: Sequence[FieldViolation],
) -> list[Outcome]:
    """The outcomes in the items' order. `bad` is what is bad already of the items that are None.

    FIELD_INVALID, KEY_STORAGE_UNAVAILABLE; where another call was faster KEY_TAKEN, EXTERNAL_ID_TAKEN,
    TRANSACTION_CONFLICT.
    """
    plan = await plan_import(tx, keeper, items)
    if violations := (*bad, *plan.violations):
        raise fields_invalid(violations)
    made = [outcome for outcome in plan.outcomes if isinstance(outcome, Made)]
    generated = [keys.canonical(one.key) for one in made if one.generated]
    if await keeper.owners(tx, generated):
        raise DomainError(Reason.TRANSACTION_CONFLICT, "a generated key is taken; try again")
    actual, born = await _make_customers(tx, plan.new_customers)
    licenses = [_held_by(one.license, actual) for one in made]
    await store.insert_licenses(tx, licenses)
    await keeper.keep_many(tx, [(one.license.license_id, one.key, one.product.key_storage) for one in made])
    events = [Event("customer.created", customer.customer_id, event_data(customer), actor) for customer in born]
    events += [Event("license.created", one.license_id, event_data(one), actor) for one in licenses]
    await emit_many(tx, events)
    return [
        Outcome(outcome.license.license_id, outcome.key if outcome.generated else "", False)
        if isinstance(outcome, Made)
        else Outcome(outcome.license_id, "", True)
        for outcome in plan.outcomes
    ]


def _held_by(license_: License, actual: Mapping[str, str]) -> License:
    customer_id = actual.get(license_.customer_id or "")
    return license_ if customer_id is None else replace(license_, customer_id=customer_id)


async def _make_customers(tx: Transaction, wanted: Sequence[Customer]) -> tuple[dict[str, str], list[Customer]]:
    """Stores new customers. Those that another call made meanwhile, by the id that was meant for them, and the others."""
    if not wanted:
        return {}, []
    inserted = await customer_store.insert_many(tx, wanted)
    late = [customer for customer in wanted if customer.customer_id not in inserted]
    emails = [customer.email for customer in late if customer.email is not None]
    subject_refs = [customer.subject_ref for customer in late if customer.subject_ref is not None]
    there = {
        name: found
        for found in await customer_store.hold_many(tx, [], emails, subject_refs)
        for name in (found.email, found.subject_ref)
    }
    actual: dict[str, str] = {}
    for customer in late:
        found = there.get(customer.email or customer.subject_ref)
        if found is None:
            raise DomainError(Reason.TRANSACTION_CONFLICT, "a customer changed meanwhile; try again")
        refuse_banned(found)
        actual[customer.customer_id] = found.customer_id
    return actual, [customer for customer in wanted if customer.customer_id in inserted]


async def _known(tx: Transaction, keeper: KeyKeeper, items: Sequence[ImportItem]) -> Known:
    wanted = [item.wanted for item in items]
    policies = await catalog_store.hold_policies(
        tx, _distinct(one.policy_id for one in wanted), _distinct(item.policy_external_id for item in items)
    )
    product_ids = _distinct(policy.product_id for policy in policies)
    products = await catalog_store.hold_products(tx, product_ids)
    tiers = await tier_store.hold_many(
        tx, _distinct(one.tier_id for one in wanted), product_ids, _distinct(item.tier for item in items)
    )
    named = [one.customer for one in wanted if one.customer is not None]
    ids, emails, subject_refs = (
        _distinct(name.value for name in named if name.by is by)
        for by in (NamedBy.ID, NamedBy.EMAIL, NamedBy.SUBJECT_REF)
    )
    customers: dict[tuple[NamedBy, str], Customer] = {}
    for found in await customer_store.hold_many(tx, ids, emails, subject_refs):
        customers[NamedBy.ID, found.customer_id] = found
        customers[NamedBy.EMAIL, found.email or ""] = found
        customers[NamedBy.SUBJECT_REF, found.subject_ref or ""] = found
    licenses = await store.get_licenses_by_external_id(tx, _distinct(one.external_id or "" for one in wanted))
    given = _distinct(keys.canonical(one.key) for one in wanted if one.key is not None)
    return Known(
        policies={policy.policy_id: policy for policy in policies},
        policies_by_external_id={policy.external_id: policy for policy in policies if policy.external_id},
        products={product.product_id: product for product in products},
        tiers={tier.tier_id: tier for tier in tiers},
        tiers_by_slug={(tier.product_id, tier.slug): tier for tier in tiers},
        customers=customers,
        licenses={found.external_id: found for found in licenses if found.external_id},
        key_owners=await keeper.owners(tx, given),
    )


def _distinct(names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name})
