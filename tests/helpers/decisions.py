"""Facts of licenses of every kind, and what the design says about them, written out a second time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from services.license.asked import Asked, User
from shared.facts.machines import NO_LIMITS, Limits, MachineTerms, SeatsValue
from tests.helpers.fleets import LAX, LIMITS, Fellow, machine_codes, meant, overrun

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class License:
    """The facts of a license."""

    status: str = "active"
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    tier: str | None = None
    tier_position: int | None = None
    tiers: Mapping[str, int] = field(default_factory=dict[str, int], hash=False)
    customer_banned: bool = False
    key_expires_at: datetime | None = None
    product_id: str = "prod_1"
    product_code: str = "PROD"
    policy_id: str = "pol_1"
    check_in_from: datetime = NOW
    max_uses_override: int | None = None
    uses: int = 0
    anchored: bool = True
    expiration_basis: str = "FROM_CREATION"
    expiration_strategy: str = "RESTRICT_ACCESS"
    grace_period: timedelta = timedelta(0)
    max_uses: int | None = None
    overridable: tuple[str, ...] = ()
    require_check_in: bool = False
    check_in_interval: str | None = None
    check_in_count: int = 1
    check_in_since: datetime | None = None
    require_product_scope: bool = False
    require_policy_scope: bool = False
    require_user_scope: bool = False
    customer_id: str | None = None
    customer_subject_ref: str | None = None
    customer_email_hash: bytes | None = None
    machines: MachineTerms = LAX
    overrides: Limits = NO_LIMITS
    seats: SeatsValue | None = None
    """As the record has them."""
    found: None = None
    fleet: tuple[Fellow, ...] = ()


ANY = Asked()
PRO = Asked(required_tier="pro")
TIERS = [(None, None), ("free", 0), ("pro", 1), ("plus", 1), ("max", 2)]
"""The tiers of the tests, by position; None is a license without."""
HOLDERS = [(None, None, None), ("cus_1", None, b"ada"), ("cus_2", "user-2", None), ("cus_3", "user-3", b"eve")]
"""Customers of the tests: id, the vendor's name, the hash of the email; the first is nobody."""
USERS = [
    None, User(customer_id="cus_1"), User(customer_id="cus_9"), User(subject_ref="user-2"), User(subject_ref="user-9"),
    User(email_hash=b"ada"), User(email_hash=b"eve"), User(email_hash=b"who"),
]  # fmt: skip
LENIENT = {"MAINTAIN_ACCESS", "ALLOW_ACCESS"}

near = st.integers(-3, 3).map(lambda ticks: NOW + ticks * TICK)
days = st.integers(-40, 40).flatmap(lambda count: near.map(lambda at: at + count * DAY))
far = st.integers(-400_000_000, 400_000_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
moments = near | days | far
periods = st.tuples(st.none() | moments, st.none() | moments).filter(
    lambda period: period[0] is None or period[1] is None or period[0] < period[1]  # none ends before it starts
)
graces = st.sampled_from([timedelta(0), TICK, DAY, 30 * DAY])
limits = st.sampled_from([None, 1, 3])


def license_of(
    period: tuple[datetime | None, datetime | None],
    tier: tuple[str | None, int | None],
    holder: tuple[str | None, str | None, bytes | None],
    **others: Any,
) -> License:
    names = ("starts_at", "expires_at", "tier", "tier_position", "customer_id", "customer_subject_ref")
    return License(
        **dict(zip(names, (*period, *tier, *holder[:2]), strict=True)), customer_email_hash=holder[2], **others
    )


facts = st.builds(
    license_of,
    period=periods,
    tier=st.sampled_from(TIERS),
    holder=st.sampled_from(HOLDERS),
    status=st.sampled_from(["active", "active", "active", "suspended", "revoked", "banned"]),
    tiers=st.sampled_from([{}, {"pro": 1}]),
    customer_banned=st.sampled_from([False, False, True]),
    key_expires_at=st.none() | moments.filter(lambda at: at > NOW),  # a key that has ended finds nothing
    check_in_from=moments,
    max_uses_override=limits,
    uses=st.integers(0, 4),
    expiration_strategy=st.sampled_from(["RESTRICT_ACCESS", "REVOKE", *sorted(LENIENT)]),
    grace_period=graces,
    max_uses=limits,
    overridable=st.sampled_from([(), ("MAX_MACHINES",), ("MAX_USES", "OFFLINE_MAX_TTL")]),
    require_check_in=st.booleans(),
    check_in_interval=st.sampled_from(["DAY", "WEEK", "MONTH", "YEAR"]),
    check_in_count=st.integers(1, 3),
    check_in_since=st.none() | moments,
    require_product_scope=st.booleans(),
    require_policy_scope=st.booleans(),
    require_user_scope=st.booleans(),
)
asked = st.builds(
    Asked,
    product=st.sampled_from(["", "prod_1", "PROD", "prod", "prod_2"]),
    policy_id=st.sampled_from(["", "pol_1", "pol_2"]),
    required_tier=st.sampled_from(["", "pro"]),
    user=st.sampled_from(USERS),
    entitlements=st.sampled_from([None, (), ("export",), ("export", "import")]),
)


def over(license_: License, now: datetime) -> bool:
    """Past the expiry and the grace period."""
    return license_.expires_at is not None and license_.expires_at + license_.grace_period <= now


def due(license_: License) -> datetime | None:
    """When the license must have checked in, by counting on the calendar."""
    if not license_.require_check_in:
        return None
    start = max(at for at in (license_.check_in_from, license_.check_in_since, license_.starts_at) if at is not None)
    days_of = {"DAY": 1, "WEEK": 7}.get(license_.check_in_interval or "")
    if days_of is not None:
        return start + days_of * license_.check_in_count * DAY
    months = license_.check_in_count * (12 if license_.check_in_interval == "YEAR" else 1)
    year, month = start.year, start.month
    for _ in range(months):
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    for day in (start.day, 30, 29, 28):
        try:
            return start.replace(year=year, month=month, day=min(day, start.day))
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")


def failing(license_: License, wanted: Asked, now: datetime) -> list[str]:
    """What the design says is wrong with a license, worst first."""
    ended, late = over(license_, now), due(license_)
    lenient = license_.expiration_strategy in LENIENT
    revoked = license_.expiration_strategy == "REVOKE" and license_.status == "active" and ended
    own = license_.max_uses_override if "MAX_USES" in license_.overridable else None
    limit = own or license_.max_uses
    user = wanted.user
    machine = meant(license_, wanted, now)
    whose = None if machine is None else machine.user
    holder = whose or (license_.customer_id, license_.customer_subject_ref, license_.customer_email_hash)
    named = None if user is None else (user.customer_id or None, user.subject_ref or None, user.email_hash or None)
    is_holder = named is None or any(
        value is not None and value == own for value, own in zip(named, holder, strict=True)
    )
    met = license_.tier == "pro" or (license_.tier == "max" and license_.tiers == {"pro": 1})
    table = [
        ("BANNED", license_.customer_banned or license_.status == "banned"),
        ("REVOKED", license_.status == "revoked" or revoked),
        ("SUSPENDED", license_.status == "suspended"),
        ("NOT_YET_VALID", license_.starts_at is not None and license_.starts_at > now),
        ("EXPIRED", ended and not lenient),
        ("CHECK_IN_OVERDUE", late is not None and late <= now),
        ("PRODUCT_SCOPE_REQUIRED", license_.require_product_scope and wanted.product == ""),
        ("PRODUCT_SCOPE_MISMATCH", wanted.product in {"prod", "prod_2"}),
        ("POLICY_SCOPE_REQUIRED", license_.require_policy_scope and wanted.policy_id == ""),
        ("POLICY_SCOPE_MISMATCH", wanted.policy_id == "pol_2"),
        ("TIER_SCOPE_MISMATCH", wanted.required_tier == "pro" and not met),
        ("USER_SCOPE_REQUIRED", license_.require_user_scope and user is None),
        ("USER_SCOPE_MISMATCH", not is_holder),
        ("ENTITLEMENTS_SCOPE_EMPTY", wanted.entitlements == ()),
        ("ENTITLEMENTS_MISSING", bool(wanted.entitlements)),
        *((code, True) for code in machine_codes(license_, wanted, now)),
        ("USES_EXCEEDED", limit is not None and license_.uses >= limit),
        ("IN_GRACE", license_.expires_at is not None and license_.expires_at <= now and not ended),
        ("EXPIRED", ended and lenient),
    ]
    return [code for code, wrong in table if wrong]


def is_valid(license_: License, wanted: Asked, now: datetime) -> bool:
    """Only a grace period, or an end that the policy does not mind, is nothing to refuse for."""
    told = {"IN_GRACE", "EXPIRED"} if license_.expiration_strategy in LENIENT else {"IN_GRACE"}
    told |= {code for code in LIMITS if overrun(license_, code) == "over"}
    return set(failing(license_, wanted, now)) <= told


def boundaries(license_: License) -> set[datetime]:
    """Every moment at which something about the license changes."""
    found = {license_.starts_at, license_.expires_at, due(license_)}
    if license_.expires_at is not None:
        found.add(license_.expires_at + license_.grace_period)
    return {at for at in found if at is not None}
