"""What an import makes of its items: what each is to be, what is bad of it, and what is there already. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from services.license import keys
from services.license.catalog_model import Policy, Product, Tier
from services.license.commands.create_license import NewLicense, license_of
from services.license.commands.find_customer import CustomerName, NamedBy, new_customer
from services.license.customer_model import Customer
from services.license.model import License, Status
from shared.errors import DomainError, FieldViolation, Reason

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImportItem:
    """A license as it was elsewhere. `wanted.policy_id` or `policy_external_id` is empty, and at most one of
    `wanted.tier_id` and `tier` is set."""

    wanted: NewLicense
    policy_external_id: str
    tier: str
    perpetual: bool
    status: Status
    status_reason: str
    created_at: datetime | None
    uses: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the record has of all that the items of a batch name."""

    policies: Mapping[str, Policy]
    """By id."""
    policies_by_external_id: Mapping[str, Policy]
    products: Mapping[str, Product]
    tiers: Mapping[str, Tier]
    """By id."""
    tiers_by_slug: Mapping[tuple[str, str], Tier]
    """By product and slug."""
    customers: Mapping[tuple[NamedBy, str], Customer]
    licenses: Mapping[str, License]
    """By external id."""
    key_owners: Mapping[str, str | None]
    """By key in canonical form: its license, None where that is gone."""


@dataclass(frozen=True, slots=True)
class Made:
    """A license to be stored."""

    license: License
    key: str
    generated: bool
    product: Product


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """An item that the record has as it is."""

    license_id: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a batch: nothing where there are violations, else one outcome an item, and customers to make."""

    outcomes: Sequence[Made | AlreadyThere]
    new_customers: Sequence[Customer]
    violations: Sequence[FieldViolation]


_PATHS: Final[Mapping[Reason, str]] = {
    Reason.CUSTOMER_BANNED: "customer",
    Reason.POLICY_INCOMPATIBLE: "overrides",
}
"""Which field of an item a refusal is about that names none itself."""


class Planner:
    """Decides on the items of one batch, one after the other. `now` is the record's time."""

    def __init__(self, known: Known, now: datetime) -> None:
        self._known = known
        self._now = now
        self._new: dict[tuple[NamedBy, str], Customer] = {}

    def plan(self, items: Sequence[ImportItem | None]) -> Plan:
        """The plan for all items. None stands for one whose fields are bad, of which nothing more is said."""
        outcomes: list[Made | AlreadyThere] = []
        violations = list(duplicates(items))
        for index, item in enumerate(items):
            if item is None:
                continue
            decided = self._decide(item)
            if isinstance(decided, Made | AlreadyThere):
                outcomes.append(decided)
            else:
                violations += [FieldViolation(at(index, v.field), v.reason, v.description) for v in decided]
        return Plan(outcomes, list(self._new.values()), violations)

    def _decide(self, item: ImportItem) -> Made | AlreadyThere | list[FieldViolation]:
        bad: list[FieldViolation] = []
        policy = self._policy(item, bad)
        tier = None if policy is None else self._tier(item, policy, bad)
        customer = None if item.wanted.customer is None else self._customer(item.wanted.customer, bad)
        if item.created_at is not None and item.created_at > self._now:
            bad.append(FieldViolation("create_time", "MUST_BE_PAST", "must not lie ahead"))
        there = self._known.licenses.get(item.wanted.external_id or "")
        product = None if policy is None else self._known.products.get(policy.product_id)
        key = item.wanted.key
        taken = key is not None and keys.canonical(key) in self._known.key_owners
        owner = self._known.key_owners.get(keys.canonical(key)) if key is not None else None
        if taken and (there is None or owner != there.license_id):
            bad.append(_violation("key", Reason.KEY_TAKEN, "a license has, or had, this key"))
        if policy is None or product is None or bad:
            return bad
        shown = key or keys.generate(product.code)
        issued_at = item.created_at or (self._now if there is None else there.created_at)
        try:
            issued = license_of(item.wanted, policy, tier=tier, customer=customer, key=shown, now=issued_at)
        except DomainError as error:
            return list(error.violations) or [_violation(_PATHS.get(error.reason, ""), error.reason, error.message)]
        license_ = _in_its_state(item, issued, self._now)
        if there is None:
            return Made(license_, shown, key is None, product)
        if _same(license_, there) and (key is None or owner == there.license_id):
            return AlreadyThere(there.license_id)
        return [
            _violation("external_id", Reason.EXTERNAL_ID_TAKEN, "a license with other content has this external_id")
        ]

    def _policy(self, item: ImportItem, bad: list[FieldViolation]) -> Policy | None:
        if item.wanted.policy_id:
            field, found = "policy_id", self._known.policies.get(item.wanted.policy_id)
        else:
            field, found = "policy_external_id", self._known.policies_by_external_id.get(item.policy_external_id)
        if found is None:
            bad.append(_violation(field, Reason.POLICY_NOT_FOUND, "no such policy in this account and mode"))
        return found

    def _tier(self, item: ImportItem, policy: Policy, bad: list[FieldViolation]) -> Tier | None:
        if item.tier:
            field, found = "tier", self._known.tiers_by_slug.get((policy.product_id, item.tier))
        elif item.wanted.tier_id:
            field, found = "tier_id", self._known.tiers.get(item.wanted.tier_id)
        else:
            return None
        if found is None:
            bad.append(_violation(field, Reason.TIER_NOT_FOUND, "no such tier of the policy's product"))
        elif found.product_id != policy.product_id:
            bad.append(FieldViolation(field, "OTHER_PRODUCT", "the tier belongs to another product"))
        return found

    def _customer(self, named: CustomerName, bad: list[FieldViolation]) -> Customer | None:
        name = (named.by, named.value)
        found = self._known.customers.get(name) or self._new.get(name)
        if found is not None:
            return found
        if named.by is NamedBy.ID:
            words = "no such customer in this account and mode"
            bad.append(_violation("customer.customer_id", Reason.CUSTOMER_NOT_FOUND, words))
            return None
        self._new[name] = made = new_customer(named, self._now)
        return made


def _in_its_state(item: ImportItem, made: License, now: datetime) -> License:
    """A license as it would be issued, in the state that it had elsewhere. It never had to check in here before."""
    if item.perpetual:
        made = replace(made, expires_at=None, expiry_anchored_at=now)
    check_in_from = max(made.check_in_from or now, now)
    return replace(
        made, status=item.status, status_reason=item.status_reason, check_in_from=check_in_from, uses=item.uses,
        updated_at=now,
    )  # fmt: skip


def _same(made: License, there: License) -> bool:
    """Whether a license is what an item says, but for what comes of its use: uses, check-ins, a duration that began."""
    if made.expiry_anchored_at is None:
        made = replace(made, expires_at=there.expires_at)
    return there == replace(
        made, license_id=there.license_id, key_hint=there.key_hint, expiry_anchored_at=there.expiry_anchored_at,
        check_in_from=there.check_in_from, last_check_in_at=there.last_check_in_at, uses=there.uses,
        last_validated_at=there.last_validated_at, first_activated_at=there.first_activated_at, revision=there.revision,
        updated_at=there.updated_at,
    )  # fmt: skip


def duplicates(items: Sequence[ImportItem | None]) -> Iterable[FieldViolation]:
    """External ids and keys that stand in a batch twice, at the later item."""
    external_ids: dict[str, int] = {}
    given_keys: dict[str, int] = {}
    for index, item in enumerate(items):
        if item is None:
            continue
        if (named := item.wanted.external_id) and external_ids.setdefault(named, index) != index:
            yield FieldViolation(at(index, "external_id"), "DUPLICATE", f"items[{external_ids[named]}] has it too")
        key = item.wanted.key
        if key is not None and given_keys.setdefault(keys.canonical(key), index) != index:
            first = given_keys[keys.canonical(key)]
            yield FieldViolation(at(index, "key"), "DUPLICATE", f"items[{first}] has it too")


def at(index: int, field: str) -> str:
    """The path of an item's field; of the item itself for an empty one."""
    return f"items[{index}].{field}" if field else f"items[{index}]"


def _violation(field: str, reason: Reason, words: str) -> FieldViolation:
    return FieldViolation(field, reason.value, words)
