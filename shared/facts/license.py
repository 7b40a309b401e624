"""What is known of licenses: the facts of each entity, and all of them together as a decision reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from shared.facts.customers import NOBODY, CustomerValue
from shared.facts.finding import find
from shared.facts.looking import UnknownFactError, needed, value_of
from shared.facts.machines import NO_SEATS, Found, Limits, MachineAsked, MachineTerms, SeatsValue, needs_seats
from shared.freshness.memory import Fact
from shared.freshness.reader import Source, View
from shared.rules.expiry import effective_expiry
from shared.tenancy import Tenant


@dataclass(frozen=True, slots=True)
class LicenseFacts:
    """What a decision needs to know of one license."""

    license_id: str
    product_id: str
    product_code: str
    policy_id: str
    status: str
    starts_at: datetime | None
    expires_at: datetime | None
    """With a duration that counts from the first machine on, where that was there."""
    anchored: bool
    """Whether its duration counts, or waits for a first validation, use or machine."""
    check_in_from: datetime
    max_uses_override: int | None
    uses: int
    """Counted at the record; 0 in facts from memory, which decide nothing where uses are limited."""
    is_trial: bool
    expiration_strategy: str
    grace_period: timedelta
    expiration_basis: str
    max_uses: int | None
    uses_counted_by: str
    overridable: Sequence[str]
    require_check_in: bool
    check_in_interval: str | None
    check_in_count: int
    check_in_since: datetime | None
    require_product_scope: bool
    require_policy_scope: bool
    require_user_scope: bool
    authentication: str
    """Whether its key may be a credential."""
    stale_ok_for: timedelta
    """For how long memory may answer without a lease while the record is away; zero for not at all."""
    machines: MachineTerms
    overrides: Limits
    """The license's own limits, which count where its policy lets it have them."""
    seats: SeatsValue | None
    """What its machines are in all; None where nothing asks for that."""
    found: Found | None
    """The machines that are meant; None where nobody asks for one."""
    key_expires_at: datetime | None
    """The end of the key that found the license, if it has one."""
    tier_id: str | None
    tier: str | None
    """The slug of the tier."""
    tier_position: int | None
    tiers: Mapping[str, int]
    """The positions of the product's tiers, by slug."""
    customer_id: str | None
    customer_subject_ref: str | None
    customer_email_hash: bytes | None
    customer_banned: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known of one license.

    Attributes:
        at: The record's time at which the facts held.
        facts: None where there is no such license.
        now: The record's time to decide at: the same, or later where the facts are from memory.
        source: Where they came from.
        made_of: Each of the facts as it is in memory; empty where they are from a load.
    """

    at: datetime
    facts: LicenseFacts | None
    now: datetime
    source: Source = Source.RECORD
    made_of: Sequence[Fact] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """One license: by the hashes that its key may have, or by its id; and the machine that is asked about, if any is."""

    key_hashes: Sequence[bytes]
    license_id: str | None
    machine: MachineAsked | None = None


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A license key."""

    license_id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class LicenseValue:
    """A license."""

    license_id: str
    product_id: str
    policy_id: str
    customer_id: str | None
    tier_id: str | None
    status: str
    starts_at: datetime | None
    expires_at: datetime | None
    anchored: bool
    check_in_from: datetime
    max_uses_override: int | None
    overrides: Limits


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """The terms of a policy that decisions read."""

    is_trial: bool
    expiration_strategy: str
    grace_period: timedelta
    expiration_basis: str
    max_uses: int | None
    uses_counted_by: str
    overridable: Sequence[str]
    require_check_in: bool
    check_in_interval: str | None
    check_in_count: int
    check_in_since: datetime | None
    require_product_scope: bool
    require_policy_scope: bool
    require_user_scope: bool
    authentication: str
    stale_ok_for: timedelta
    machines: MachineTerms
    first_duration: timedelta | None
    """How long its licenses last before any renewal; None for perpetual ones."""


@dataclass(frozen=True, slots=True)
class ProductValue:
    """A product."""

    product_code: str


@dataclass(frozen=True, slots=True)
class TiersValue:
    """All tiers of a product: of each its id, slug and position."""

    tiers: Sequence[tuple[str, str, int]]
    positions: Mapping[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", {slug: position for _, slug, position in self.tiers})


KEY_BYTES: Final = 800
"""About what a key takes, and the answer that is kept of it."""
LICENSE_BYTES: Final = 500
SHARED_BYTES: Final = 600
"""About what a policy, product, customer or the tiers of a product take."""

OF_THE_POLICY: Final = tuple(one.name for one in fields(PolicyValue) if one.name != "first_duration")
"""What a decision reads of a policy as it is."""
_VALUES_OF_THE_POLICY: Final = attrgetter(*OF_THE_POLICY)


def tenant_prefix(tenant: Tenant) -> str:
    """What the keys of a tenant's facts begin with, after the kind."""
    return f"{tenant.account_id}/{tenant.mode.value}/"


def license_key(prefix: str, key_hash: bytes) -> str:
    """The key of the fact of a license key."""
    return f"license_key:{prefix}\\x{key_hash.hex()}"


def look(view: View, tenant: Tenant, wanted: Wanted) -> Loaded | None:
    """What is known of a license; None where a fact is not known."""
    prefix, start = tenant_prefix(tenant), len(view.seen)
    try:
        facts = _found(view, prefix, wanted)
    except UnknownFactError:
        return None
    return Loaded(view.at, facts, view.now, view.source, tuple(view.seen[start:]))


def _found(view: View, prefix: str, wanted: Wanted) -> LicenseFacts | None:
    """Two live peppers can match one key each while a key is rotated: the first that still works counts."""
    if wanted.license_id is not None:
        license_ = value_of(view, f"license:{prefix}{wanted.license_id}", LicenseValue)
        return None if license_ is None else _joined(view, prefix, license_, None, wanted.machine)
    for key_hash in wanted.key_hashes:
        key = value_of(view, license_key(prefix, key_hash), KeyValue)
        if key is not None and (key.expires_at is None or key.expires_at > view.now):
            license_ = needed(view, f"license:{prefix}{key.license_id}", LicenseValue)
            return _joined(view, prefix, license_, key.expires_at, wanted.machine)
    return None


def _joined(
    view: View, prefix: str, license_: LicenseValue, key_expires_at: datetime | None, asked: MachineAsked | None
) -> LicenseFacts:
    product_id, customer_id = license_.product_id, license_.customer_id
    policy = needed(view, f"policy:{prefix}{license_.policy_id}", PolicyValue)
    product = needed(view, f"product:{prefix}{product_id}", ProductValue)
    tiers = needed(view, f"tier:{prefix}{product_id}", TiersValue)
    customer = NOBODY if customer_id is None else needed(view, f"customer:{prefix}{customer_id}", CustomerValue)
    own = next(((slug, position) for tier_id, slug, position in tiers.tiers if tier_id == license_.tier_id), None)
    seats = None
    if needs_seats(policy.machines, license_.overrides, policy.expiration_basis, asked):
        seats = value_of(view, f"seats:{prefix}{license_.license_id}", SeatsValue) or NO_SEATS
    terms: dict[str, Any] = dict(zip(OF_THE_POLICY, _VALUES_OF_THE_POLICY(policy), strict=True))
    return LicenseFacts(
        license_id=license_.license_id,
        product_id=license_.product_id,
        product_code=product.product_code,
        policy_id=license_.policy_id,
        status=license_.status,
        starts_at=license_.starts_at,
        expires_at=effective_expiry(
            expires_at=license_.expires_at,
            anchored=license_.anchored,
            expiration_basis=policy.expiration_basis,
            first_duration=policy.first_duration,
            starts_at=license_.starts_at,
            first_activated_at=None if seats is None else seats.first_activated_at,
        ),
        anchored=license_.anchored,
        check_in_from=license_.check_in_from,
        max_uses_override=license_.max_uses_override,
        uses=view.counts.get(license_.license_id, 0),
        key_expires_at=key_expires_at,
        tier_id=license_.tier_id,
        tier=None if own is None else own[0],
        tier_position=None if own is None else own[1],
        tiers=tiers.positions,
        customer_id=license_.customer_id,
        customer_subject_ref=customer.customer_subject_ref,
        customer_email_hash=customer.customer_email_hash,
        customer_banned=customer.customer_banned,
        overrides=license_.overrides,
        seats=seats,
        found=None if asked is None else find(view, prefix, license_.license_id, policy.machines, asked),
        **terms,
    )
