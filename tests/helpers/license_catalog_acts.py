"""The catalog and the customers of the model: what becomes of them, and what an act is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tests.helpers.license_model import Customer, Policy, State, Terms, Tier, put


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is asked. `args` are the request's, by the contract's names; times and durations as Python has them."""

    kind: str
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __getitem__(self, name: str) -> Any:
        return self.args.get(name)


@dataclass(frozen=True, slots=True)
class Made:
    """What only the answer tells: ids, a key, and when a validation began to count a license's duration."""

    id: str = ""
    customer_id: str = ""
    key: str = ""
    counted_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An event: `subject_is` is some of what it says about its subject."""

    subject: str
    type: str
    reason: str
    subject_is: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """`refusals` are the reasons of which the answer has one; empty where it is OK."""

    state: State
    told: tuple[Told, ...] = ()
    refusals: frozenset[str] = frozenset()


class RefusedError(Exception):
    """With the reasons."""


def refuse(**reasons: bool) -> None:
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise RefusedError(*found)


def create_product(state: State, act: Act, now: datetime, made: Made) -> Done:
    refuse(CODE_TAKEN=act["code"] in state.products.values())
    after = replace(state, products=put(state.products, made.id, act["code"]))
    return Done(after, (Told(made.id, "product.created", "", {"revision": 1}),))


def create_tier(state: State, act: Act, now: datetime, made: Made) -> Done:
    taken = any((tier.product_id, tier.slug) == (act["product_id"], act["slug"]) for tier in state.tiers.values())
    refuse(PRODUCT_NOT_FOUND=act["product_id"] not in state.products, CODE_TAKEN=taken)
    tier = Tier(act["product_id"], act["slug"], act["position"])
    return Done(replace(state, tiers=put(state.tiers, made.id, tier)), (_tier_told(made.id, "created", tier),))


def _tier_told(tier_id: str, what: str, tier: Tier) -> Told:
    return Told(tier_id, f"tier.{what}", "", {"revision": tier.revision, "position": tier.position, "slug": tier.slug})


def update_tier(state: State, act: Act, now: datetime, made: Made) -> Done:
    tier = state.tiers.get(act["tier_id"])
    if tier is None:
        raise RefusedError("TIER_NOT_FOUND")
    slug = act.args.get("slug", tier.slug)
    others = (other for tier_id, other in state.tiers.items() if tier_id != act["tier_id"])
    refuse(CODE_TAKEN=any((other.product_id, other.slug) == (tier.product_id, slug) for other in others))
    after = replace(tier, slug=slug, position=act.args.get("position", tier.position), revision=tier.revision + 1)
    told = _tier_told(act["tier_id"], "updated", after)
    return Done(replace(state, tiers=put(state.tiers, act["tier_id"], after)), (told,))


def delete_tier(state: State, act: Act, now: datetime, made: Made) -> Done:
    tier = state.tiers.get(act["tier_id"])
    if tier is None:
        raise RefusedError("TIER_NOT_FOUND")
    refuse(RESOURCE_IN_USE=any(found.tier_id == act["tier_id"] for found in state.licenses.values()))
    left = {tier_id: other for tier_id, other in state.tiers.items() if tier_id != act["tier_id"]}
    return Done(replace(state, tiers=left), (_tier_told(act["tier_id"], "deleted", tier),))


def _policy_told(policy_id: str, what: str, policy: Policy) -> Told:
    strategy = policy.terms.expiration_strategy
    return Told(policy_id, f"policy.{what}", "", {"revision": policy.revision, "expiration_strategy": strategy})


def create_policy(state: State, act: Act, now: datetime, made: Made) -> Done:
    terms: Terms = act["terms"]
    refuse(FIELD_INVALID=terms.contradictory, PRODUCT_NOT_FOUND=act["product_id"] not in state.products)
    policy = Policy(act["product_id"], terms, now if terms.require_check_in else None)
    after = replace(state, policies=put(state.policies, made.id, policy))
    return Done(after, (_policy_told(made.id, "created", policy),))


def update_policy(state: State, act: Act, now: datetime, made: Made) -> Done:
    policy = state.policies.get(act["policy_id"])
    if policy is None:
        raise RefusedError("POLICY_NOT_FOUND")
    terms = replace(policy.terms, **act["terms"])
    refuse(FIELD_INVALID=terms.contradictory)
    since = policy.asks_check_ins_since if policy.terms.require_check_in else now
    since = since if terms.require_check_in else None
    after = Policy(policy.product_id, terms, since, policy.revision + 1)
    told = _policy_told(act["policy_id"], "updated", after)
    return Done(replace(state, policies=put(state.policies, act["policy_id"], after)), (told,))


def delete_policy(state: State, act: Act, now: datetime, made: Made) -> Done:
    policy = state.policies.get(act["policy_id"])
    if policy is None:
        raise RefusedError("POLICY_NOT_FOUND")
    refuse(RESOURCE_IN_USE=any(found.policy_id == act["policy_id"] for found in state.licenses.values()))
    left = {policy_id: other for policy_id, other in state.policies.items() if policy_id != act["policy_id"]}
    return Done(replace(state, policies=left), (_policy_told(act["policy_id"], "deleted", policy),))


def _customer_told(customer_id: str, what: str, customer: Customer, reason: str = "") -> Told:
    seen = {"revision": customer.revision, "email": customer.email or None, "subject_ref": customer.subject_ref or None}
    return Told(customer_id, f"customer.{what}", reason, seen)


def change_ban(state: State, act: Act, now: datetime, made: Made) -> Done:
    customer = state.customers.get(act["customer_id"])
    if customer is None:
        raise RefusedError("CUSTOMER_NOT_FOUND")
    bans = act.kind == "ban_customer"
    refuse(STATE_TRANSITION_INVALID=customer.banned == bans)
    after = replace(customer, banned=bans, revision=customer.revision + 1)
    told = _customer_told(act["customer_id"], "banned" if bans else "unbanned", after, act["reason"] or "")
    return Done(replace(state, customers=put(state.customers, act["customer_id"], after)), (told,))


def update_customer(state: State, act: Act, now: datetime, made: Made) -> Done:
    customer = state.customers.get(act["customer_id"])
    if customer is None:
        raise RefusedError("CUSTOMER_NOT_FOUND")
    email, ref = act.args.get("email", customer.email).lower(), act.args.get("subject_ref", customer.subject_ref)
    others = [other for other_id, other in state.customers.items() if other_id != act["customer_id"]]
    taken = any((email and other.email == email) or (ref and other.subject_ref == ref) for other in others)
    refuse(FIELD_INVALID=not email and not ref, CUSTOMER_TAKEN=taken)
    after = replace(customer, email=email, subject_ref=ref, revision=customer.revision + 1)
    told = _customer_told(act["customer_id"], "updated", after)
    return Done(replace(state, customers=put(state.customers, act["customer_id"], after)), (told,))


def _known(state: State, named: tuple[str, str] | None) -> str:
    """The id of a customer, empty where there is none yet."""
    if named is None:
        return ""
    way, name = named
    if way == "customer_id":
        return name if name in state.customers else ""
    name = name.lower() if way == "email" else name
    return next((cid for cid, customer in state.customers.items() if getattr(customer, way) == name), "")


def nobody(state: State, named: tuple[str, str] | None) -> dict[str, bool]:
    """Why a customer cannot be given a license."""
    known = state.customers.get(_known(state, named))
    return {
        "CUSTOMER_NOT_FOUND": named is not None and named[0] == "customer_id" and known is None,
        "CUSTOMER_BANNED": known is not None and known.banned,
    }


def holder(state: State, named: tuple[str, str] | None, made: Made) -> tuple[State, str, tuple[Told, ...]]:
    """The customer that is named, made where new."""
    known = _known(state, named)
    if named is None or known:
        return state, known, ()
    customer = Customer(named[1].lower(), "") if named[0] == "email" else Customer("", named[1])
    after = replace(state, customers=put(state.customers, made.customer_id, customer))
    return after, made.customer_id, (_customer_told(made.customer_id, "created", customer),)
