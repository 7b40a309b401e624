"""decide(): the first failing check is the code, and `valid_until` is the moment at which time alone changes it.

What is wrong with a license is written out here a second time, in the order of the design, for facts of every kind.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from lictor.license.v1.validation_service_pb2 import ValidationCode

from services.license import model
from services.license.asked import Asked
from services.license.codes import CUSTOMER_IS_BANNED, DETAILS, EXPIRED_AND_USABLE, Code
from services.license.decision import CHECKS, RECHECK_AFTER, decide
from services.license.terms import CheckInInterval, ExpirationStrategy, Overrides, PolicyLimit, Terms
from tests.helpers.decisions import (
    ANY,
    DAY,
    LENIENT,
    NOW,
    PRO,
    TICK,
    TIERS,
    License,
    asked,
    boundaries,
    due,
    facts,
    failing,
    is_valid,
    over,
)

ORDER = [
    "NOT_FOUND", "BANNED", "REVOKED", "SUSPENDED", "NOT_YET_VALID", "EXPIRED", "CHECK_IN_OVERDUE", "PRODUCT_SCOPE_REQUIRED",
    "PRODUCT_SCOPE_MISMATCH", "POLICY_SCOPE_REQUIRED", "POLICY_SCOPE_MISMATCH", "TIER_SCOPE_MISMATCH", "USER_SCOPE_REQUIRED",
    "USER_SCOPE_MISMATCH", "ENTITLEMENTS_SCOPE_EMPTY", "ENTITLEMENTS_MISSING", "MACHINE_SCOPE_REQUIRED", "NO_MACHINE",
    "NO_MACHINES", "MACHINE_SCOPE_MISMATCH", "FINGERPRINT_SCOPE_REQUIRED", "FINGERPRINT_SCOPE_EMPTY", "FINGERPRINT_NOT_FOUND",
    "HEARTBEAT_NOT_STARTED", "HEARTBEAT_DEAD", "COMPONENTS_SCOPE_REQUIRED", "COMPONENTS_SCOPE_EMPTY",
    "COMPONENTS_SCOPE_MISMATCH", "TOO_MANY_USERS", "MACHINE_LIMIT_EXCEEDED", "TOO_MANY_CORES", "TOO_MUCH_MEMORY",
    "TOO_MUCH_DISK", "TOO_MANY_PROCESSES", "USES_EXCEEDED", "IN_GRACE", "VALID",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(facts, asked)
def test_the_code_is_the_first_of_all_codes(license_: License, wanted: Asked) -> None:
    verdict = decide(license_, wanted, NOW)
    names = [code.name for code in verdict.all_codes]
    assert names == (failing(license_, wanted, NOW) or ["VALID"])
    assert verdict.code is verdict.all_codes[0]
    assert verdict.valid is is_valid(license_, wanted, NOW)
    assert verdict.valid or verdict.code not in {Code.VALID, Code.IN_GRACE}
    assert verdict.missing == (wanted.entitlements or ())
    assert len(names) == len(set(names))


@settings(deadline=None, max_examples=300)
@given(facts, asked)
def test_until_valid_until_the_answer_stands_and_then_it_does_not(license_: License, wanted: Asked) -> None:
    verdict = decide(license_, wanted, NOW)
    first, until = (verdict.code, verdict.valid), verdict.valid_until
    key_end = license_.key_expires_at
    assert until is None or until > NOW
    assert key_end is None or (until is not None and until <= key_end)
    moments_near = {at + offset for at in boundaries(license_) for offset in (-TICK, 0 * DAY, TICK)}
    for later in sorted(moments_near | {NOW + TICK, NOW + 40_000 * DAY} | ({until - TICK} if until else set())):
        if later >= NOW and (until is None or later < until):
            verdict_then = decide(license_, wanted, later)
            assert (verdict_then.code, verdict_then.valid) == first
            assert verdict_then.valid_until == until
    if until is not None and until != key_end:
        verdict_then = decide(license_, wanted, until)
        assert (verdict_then.code, verdict_then.valid) != first
        assert until in boundaries(license_)


@settings(deadline=None)
@given(facts, asked)
def test_a_caller_is_never_told_to_wait_past_the_change(license_: License, wanted: Asked) -> None:
    verdict = decide(license_, wanted, NOW)
    assert timedelta(0) < verdict.recheck_after <= RECHECK_AFTER
    if verdict.valid_until is None:
        assert verdict.recheck_after == RECHECK_AFTER
    else:
        assert verdict.recheck_after == min(RECHECK_AFTER, verdict.valid_until - NOW)


def stored(license_: License) -> model.License:
    """The same license as the rest of the service has it."""
    terms = Terms(
        expiration_strategy=ExpirationStrategy(license_.expiration_strategy),
        grace_period=license_.grace_period,
        require_check_in=license_.require_check_in,
        check_in_interval=CheckInInterval(license_.check_in_interval or "DAY"),
        check_in_count=license_.check_in_count,
        max_uses=license_.max_uses,
        overridable=tuple(PolicyLimit(limit) for limit in license_.overridable),
    )
    return model.License(
        "lic_1", None, "prod_1", "pol_1", None, None, "", model.Status(license_.status), "", "XYZW", license_.starts_at,
        license_.expires_at, NOW, license_.check_in_from, None, Overrides(max_uses=license_.max_uses_override), {}, {}, 1,
        NOW, NOW, terms, license_.check_in_since, license_.uses,
    )  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(facts)
def test_what_a_license_shows_of_itself_is_what_a_validation_says(license_: License) -> None:
    alone = replace(license_, customer_banned=False)
    codes = set(decide(alone, ANY, NOW).all_codes)
    shown = stored(alone)
    status, marks = shown.status_at(NOW), set(model.marks(shown, NOW))
    assert (status is model.Status.BANNED) is (Code.BANNED in codes)
    assert (status is model.Status.REVOKED) is (Code.REVOKED in codes)
    assert (status is model.Status.SUSPENDED) is (Code.SUSPENDED in codes)
    if alone.status == "active":
        assert (status in {model.Status.EXPIRED, model.Status.REVOKED}) is (Code.EXPIRED in codes)
        assert (model.Mark.IN_GRACE in marks) is (Code.IN_GRACE in codes)
    usable = shown.status_in_use_at(NOW) is model.Status.ACTIVE
    assert usable is not bool(codes & {Code.BANNED, Code.REVOKED, Code.SUSPENDED} or _is_refused_as_expired(alone))
    assert (model.Mark.CHECK_IN_OVERDUE in marks) is (usable and Code.CHECK_IN_OVERDUE in codes)
    assert shown.check_in_due == due(alone)
    assert (shown.max_uses is not None and shown.uses >= shown.max_uses) is (Code.USES_EXCEEDED in codes)


def _is_refused_as_expired(license_: License) -> bool:
    return license_.status == "active" and over(license_, NOW) and license_.expiration_strategy not in LENIENT


@pytest.mark.parametrize("strategy", ["RESTRICT_ACCESS", "REVOKE", "MAINTAIN_ACCESS", "ALLOW_ACCESS"])
def test_the_life_of_a_license_past_its_expiry(strategy: str) -> None:
    license_ = License(expires_at=NOW, grace_period=DAY, expiration_strategy=strategy)
    end = NOW + DAY
    ended: dict[str, tuple[list[str], bool]] = {
        "RESTRICT_ACCESS": (["EXPIRED"], False),
        "REVOKE": (["REVOKED", "EXPIRED"], False),
    }
    for at, codes, valid, until in (
        (NOW - TICK, ["VALID"], True, NOW),
        (NOW, ["IN_GRACE"], True, end),
        (end - TICK, ["IN_GRACE"], True, end),
        (end, *ended.get(strategy, (["EXPIRED"], True)), None),
        (end + TICK, *ended.get(strategy, (["EXPIRED"], True)), None),
    ):
        verdict = decide(license_, ANY, at)
        assert ([code.name for code in verdict.all_codes], verdict.valid, verdict.valid_until) == (codes, valid, until)
    last = decide(license_, ANY, end)
    assert last.detail == (EXPIRED_AND_USABLE if last.valid else DETAILS[last.code])


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
    license_ = License(tier=tier, tier_position=dict(TIERS)[tier], tiers={"pro": 1})
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
