"""Whether a license may have a file, and for how long: every status, and every end of it to the microsecond."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from services.license.file_model import (
    FileStatus,
    LicenseFile,
    Span,
    most_ttl,
    refuse_unless_allowed,
    span,
)
from services.license.model import License, Status
from services.license.signing_key_model import KeyStatus
from services.license.terms import CheckInInterval, ExpirationBasis, ExpirationStrategy, Overrides, PolicyLimit, Terms
from shared.errors import DomainError, Reason

NOW = datetime(2030, 1, 1, tzinfo=UTC)
US, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)


def license_(terms: Terms | None = None, **more: Any) -> License:
    made = License(
        "lic_1", None, "prod_1", "pol_1", None, None, "", Status.ACTIVE, "", "H", None, None, NOW - DAY, None, None,
        Overrides(), {}, {}, 1, NOW - DAY, NOW - DAY, terms or Terms(),
    )  # fmt: skip
    return replace(made, **more)


def refusal(asked: License, now: datetime = NOW) -> tuple[Reason, dict[str, str]] | None:
    try:
        refuse_unless_allowed(asked, now)
    except DomainError as refused:
        return refused.reason, dict(refused.metadata)
    return None


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.EXPIRED])
def test_only_a_license_that_works_has_files(status: Status) -> None:
    expected = {"from": status.value, "action": "check_out"}
    found = refusal(license_(status=status))
    assert found == (None if status is Status.ACTIVE else (Reason.STATE_TRANSITION_INVALID, expected))


@pytest.mark.parametrize("strategy", ExpirationStrategy)
def test_an_expired_license_has_files_where_it_may_be_used(strategy: ExpirationStrategy) -> None:
    terms = Terms(expiration_strategy=strategy, grace_period=DAY)
    lenient = strategy in {ExpirationStrategy.MAINTAIN_ACCESS, ExpirationStrategy.ALLOW_ACCESS}
    word = "revoked" if strategy is ExpirationStrategy.REVOKE else "expired"
    for at, works in ((NOW - US, True), (NOW, lenient), (NOW + US, lenient)):
        found = refusal(license_(terms, expires_at=NOW - DAY), at)
        assert found == (None if works else (Reason.STATE_TRANSITION_INVALID, {"from": word, "action": "check_out"}))


def test_a_policy_may_allow_no_files() -> None:
    assert refusal(license_(Terms(offline_allowed=False))) == (Reason.OFFLINE_NOT_ALLOWED, {"policyId": "pol_1"})


def test_a_license_that_is_late_to_check_in_has_no_files_and_no_file_outlasts_its_check_in() -> None:
    terms = Terms(require_check_in=True, check_in_interval=CheckInInterval.DAY)
    asked = license_(terms, check_in_from=NOW - DAY)
    assert refusal(asked, NOW - US) is None
    late = (Reason.STATE_TRANSITION_INVALID, {"from": "check_in_overdue", "action": "check_out"})
    assert refusal(asked, NOW) == late
    assert span(asked, None, NOW - HOUR).expires_at == NOW


@pytest.mark.parametrize(
    ("ttl", "ok"),
    [
        (HOUR - US, False),
        (HOUR, True),
        (7 * DAY, True),
        (7 * DAY + US, False),
        (90 * DAY, False),
    ],
)
def test_a_ttl_is_within_the_policys_bounds(ttl: timedelta, ok: bool) -> None:
    asked = license_(Terms(offline_max_ttl=7 * DAY))
    if ok:
        assert span(asked, ttl, NOW) == Span(NOW, NOW + ttl)
        return
    with pytest.raises(DomainError) as refused:
        span(asked, ttl, NOW)
    assert [(v.field, v.reason) for v in refused.value.violations] == [("ttl", "TTL_OUT_OF_RANGE")]


def test_a_license_overrides_the_policys_bound_where_that_lets_it() -> None:
    overrides = Overrides(offline_max_ttl=30 * DAY)
    kept_out = license_(Terms(offline_max_ttl=DAY), overrides=overrides)
    let_in = license_(Terms(offline_max_ttl=DAY, overridable=(PolicyLimit.OFFLINE_MAX_TTL,)), overrides=overrides)
    assert (most_ttl(kept_out), most_ttl(let_in)) == (DAY, 30 * DAY)
    assert span(let_in, None, NOW).expires_at == NOW + 30 * DAY


@pytest.mark.parametrize("strategy", ExpirationStrategy)
def test_a_file_ends_with_its_license_grace_included(strategy: ExpirationStrategy) -> None:
    terms = Terms(expiration_strategy=strategy, grace_period=HOUR)
    lenient = strategy in {ExpirationStrategy.MAINTAIN_ACCESS, ExpirationStrategy.ALLOW_ACCESS}
    for left in (US, HOUR, 13 * DAY, 14 * DAY - HOUR - US):
        found = span(license_(terms, expires_at=NOW + left), None, NOW)
        assert found.expires_at == (NOW + 14 * DAY if lenient else NOW + left + HOUR)
    assert span(license_(terms, expires_at=NOW + 14 * DAY), None, NOW).expires_at == NOW + 14 * DAY


def test_a_duration_that_does_not_count_yet_bounds_a_file_as_if_it_began_now() -> None:
    terms = Terms(duration=3 * DAY, expiration_basis=ExpirationBasis.FROM_FIRST_VALIDATION)
    waiting = license_(terms, expiry_anchored_at=None)
    assert span(waiting, None, NOW).expires_at == NOW + 3 * DAY
    assert span(license_(Terms()), None, NOW).expires_at == NOW + 14 * DAY, "a perpetual one has nothing to wait for"


def test_a_file_of_a_license_that_starts_later_is_good_from_then_on() -> None:
    asked = license_(starts_at=NOW + DAY)
    assert span(asked, None, NOW) == Span(NOW + DAY, NOW + 14 * DAY)
    assert span(asked, DAY + US, NOW) == Span(NOW + DAY, NOW + DAY + US)
    with pytest.raises(DomainError) as refused:
        span(asked, DAY, NOW)
    assert [v.reason for v in refused.value.violations] == ["TTL_OUT_OF_RANGE"]


FILE = LicenseFile("file_1", "lic_1", 3, "kid_1", NOW - DAY, NOW - DAY, NOW, encrypted=False, bound=False)


@pytest.mark.parametrize(("key", "status"), list(product([*KeyStatus, None], Status)))
def test_what_became_of_a_file(key: KeyStatus | None, status: Status) -> None:
    revoked = key in {None, KeyStatus.REVOKED} or status in {Status.REVOKED, Status.BANNED}
    assert FILE.status_at(NOW - US, 3, key, status) is (FileStatus.REVOKED if revoked else FileStatus.ISSUED)
    assert FILE.status_at(NOW - US, 4, key, status) is (FileStatus.REVOKED if revoked else FileStatus.SUPERSEDED)
    for newest in (3, 4):
        assert FILE.status_at(NOW, newest, key, status) is (FileStatus.REVOKED if revoked else FileStatus.EXPIRED)
