"""decide(): the first failing check is the code, and `valid_until` is the moment at which time alone changes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lictor.license.v1.validation_service_pb2 import ValidationCode

from services.license.decision import CHECKS, CUSTOMER_IS_BANNED, DETAILS, RECHECK_AFTER, Asked, Code, decide

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
ORDER = [
    "NOT_FOUND", "BANNED", "REVOKED", "SUSPENDED", "NOT_YET_VALID", "EXPIRED", "CHECK_IN_OVERDUE", "PRODUCT_SCOPE_REQUIRED",
    "PRODUCT_SCOPE_MISMATCH", "POLICY_SCOPE_REQUIRED", "POLICY_SCOPE_MISMATCH", "TIER_SCOPE_MISMATCH", "USER_SCOPE_REQUIRED",
    "USER_SCOPE_MISMATCH", "ENTITLEMENTS_SCOPE_EMPTY", "ENTITLEMENTS_MISSING", "USES_EXCEEDED", "IN_GRACE", "VALID",
]  # fmt: skip


@dataclass(frozen=True)
class License:
    """The facts of a license."""

    status: str = "active"
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    tier: str | None = None
    tier_position: int | None = None
    required_position: int | None = None
    customer_banned: bool = False
    key_expires_at: datetime | None = None
    product_id: str = "prod_1"
    product_code: str = "PROD"
    policy_id: str = "pol_1"
    check_in_from: datetime = NOW
    max_uses_override: int | None = None
    uses: int = 0
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


ANY = Asked()
PRO = Asked(required_tier="pro")
TIERS = [(None, None), ("free", 0), ("pro", 1), ("plus", 1), ("max", 2)]
"""The tiers of the tests, by position; None is a license without."""

near = st.integers(-3, 3).map(lambda ticks: NOW + ticks * TICK)
far = st.integers(-400_000_000, 400_000_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
moments = st.none() | near | far
statuses = st.sampled_from(["active", "suspended", "revoked", "banned"])
positions = st.sampled_from([None, 1])
facts = st.tuples(statuses, moments, moments, st.sampled_from(TIERS), positions, st.booleans()).map(
    lambda drawn: License(drawn[0], drawn[1], drawn[2], *drawn[3], required_position=drawn[4], customer_banned=drawn[5])
)
asked = st.sampled_from([ANY, PRO])


def possible(license_: License) -> bool:
    """No license ends before it starts."""
    return license_.starts_at is None or license_.expires_at is None or license_.starts_at < license_.expires_at


def failing(license_: License, wanted: Asked, now: datetime) -> list[str]:
    """What the design says is wrong with a license, worst first."""
    wrong = ["BANNED"] if license_.customer_banned and license_.status != "banned" else []
    if license_.status != "active":
        wrong.append(license_.status.upper())
    if license_.starts_at is not None and license_.starts_at > now:
        wrong.append("NOT_YET_VALID")
    if license_.expires_at is not None and not license_.expires_at > now:
        wrong.append("EXPIRED")
    if wanted is PRO and license_.tier != "pro" and not (license_.tier == "max" and license_.required_position == 1):
        wrong.append("TIER_SCOPE_MISMATCH")
    return wrong


@settings(deadline=None)
@given(facts, asked)
def test_the_code_is_the_first_of_all_codes(license_: License, wanted: Asked) -> None:
    verdict = decide(license_, wanted, NOW)
    names = [code.name for code in verdict.all_codes]
    assert names == (failing(license_, wanted, NOW) or ["VALID"])
    assert verdict.code is verdict.all_codes[0]
    assert verdict.valid is (verdict.code is Code.VALID)
    assert names == sorted(set(names), key=ORDER.index)


@settings(deadline=None)
@given(facts.filter(possible), asked)
def test_until_valid_until_the_answer_stands_and_then_it_does_not(license_: License, wanted: Asked) -> None:
    verdict = decide(license_, wanted, NOW)
    if verdict.valid_until is None:
        changes = [moment for moment in (license_.starts_at, license_.expires_at) if moment is not None]
        for later in (NOW + TICK, NOW + 40_000 * DAY, *changes, *(moment + TICK for moment in changes)):
            assert later < NOW or decide(license_, wanted, later).code is verdict.code
    else:
        assert verdict.valid_until > NOW
        assert decide(license_, wanted, verdict.valid_until - TICK).code is verdict.code
        assert decide(license_, wanted, verdict.valid_until).code is not verdict.code


@settings(deadline=None)
@given(facts)
def test_a_caller_is_never_told_to_wait_past_the_change(license_: License) -> None:
    verdict = decide(license_, ANY, NOW)
    assert timedelta(0) < verdict.recheck_after <= RECHECK_AFTER
    if verdict.valid_until is None:
        assert verdict.recheck_after == RECHECK_AFTER
    else:
        assert verdict.recheck_after == min(RECHECK_AFTER, verdict.valid_until - NOW)


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (NOW - TICK, Code.NOT_YET_VALID),
        (NOW, Code.VALID),
        (NOW + DAY - TICK, Code.VALID),
        (NOW + DAY, Code.EXPIRED),
        (NOW + DAY + TICK, Code.EXPIRED),
    ],
)
def test_a_license_is_valid_from_its_first_instant_until_before_its_last(now: datetime, code: Code) -> None:
    assert decide(License(starts_at=NOW, expires_at=NOW + DAY), ANY, now).code is code


def test_valid_until_is_the_start_and_then_the_expiry() -> None:
    license_ = License(starts_at=NOW, expires_at=NOW + DAY)
    assert decide(license_, ANY, NOW - TICK).valid_until == NOW
    assert decide(license_, ANY, NOW).valid_until == NOW + DAY
    assert decide(license_, ANY, NOW + DAY).valid_until is None
    assert decide(License(), ANY, NOW).valid_until is None
    assert decide(License("suspended", NOW, NOW + DAY), ANY, NOW - TICK).valid_until is None


def test_recheck_after_ends_with_the_answer() -> None:
    assert decide(License(expires_at=NOW + TICK), ANY, NOW).recheck_after == TICK
    assert decide(License(expires_at=NOW + RECHECK_AFTER), ANY, NOW).recheck_after == RECHECK_AFTER
    assert decide(License(expires_at=NOW + RECHECK_AFTER + TICK), ANY, NOW).recheck_after == RECHECK_AFTER


@pytest.mark.parametrize(
    ("tier", "met"), [("pro", True), ("max", True), ("plus", False), ("free", False), (None, False)]
)
def test_a_tier_is_met_by_itself_and_by_those_above_it(tier: str | None, met: bool) -> None:
    license_ = License(tier=tier, tier_position=dict(TIERS)[tier], required_position=1)
    assert decide(license_, PRO, NOW).valid is met
    assert decide(license_, ANY, NOW).valid


def test_a_tier_that_the_product_does_not_have_is_met_by_none() -> None:
    for tier, position in TIERS:
        license_ = License(tier=tier, tier_position=position)
        assert decide(license_, Asked(required_tier="nope"), NOW).code is Code.TIER_SCOPE_MISMATCH


def test_the_detail_says_who_is_banned() -> None:
    for status in ("active", "suspended", "revoked"):
        assert decide(License(status, customer_banned=True), ANY, NOW).detail == CUSTOMER_IS_BANNED
    assert decide(License("banned", customer_banned=True), ANY, NOW).detail == DETAILS[Code.BANNED]
    assert decide(License("banned"), ANY, NOW).detail == DETAILS[Code.BANNED] != CUSTOMER_IS_BANNED
    assert decide(License(), ANY, NOW).detail == DETAILS[Code.VALID]


def test_no_license_is_not_found_and_nothing_else() -> None:
    verdict = decide(None, PRO, NOW)
    assert (verdict.valid, verdict.code, verdict.all_codes) == (False, Code.NOT_FOUND, (Code.NOT_FOUND,))
    assert (verdict.valid_until, verdict.recheck_after) == (None, RECHECK_AFTER)


def test_codes_are_numbered_by_their_place_and_are_those_of_the_contract() -> None:
    assert [code.name for code in sorted(Code)] == ORDER
    assert {code.name: int(code) for code in Code} == {
        name: number for name, number in ValidationCode.Code.items() if number
    }
    refusing = [check.code for check in CHECKS if check.refuses]
    assert refusing == sorted(refusing)
    assert [check.code for check in CHECKS] == [*refusing, Code.IN_GRACE, Code.EXPIRED]
    assert {check.code for check in CHECKS} == set(Code) - {Code.NOT_FOUND, Code.VALID}
    assert set(DETAILS) == set(Code)


@pytest.mark.parametrize("status", ["active", "suspended", "revoked", "banned"])
def test_the_end_of_the_key_that_was_named_changes_the_answer_in_every_state(status: str) -> None:
    ending = License(status, key_expires_at=NOW + TICK)
    assert decide(ending, Asked(), NOW).valid_until == NOW + TICK
    assert decide(ending, Asked(), NOW).recheck_after == TICK
    assert decide(ending, Asked(), NOW).code.name == (status.upper() if status != "active" else "VALID")
    sooner = License(status, expires_at=NOW + TICK, key_expires_at=NOW + DAY)
    assert decide(sooner, Asked(), NOW).valid_until == (NOW + TICK if status == "active" else NOW + DAY)
