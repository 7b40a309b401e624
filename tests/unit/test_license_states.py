"""Every (state, action) pair of licenses, accounts and API keys, against tables that are written out here in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.license import transitions
from services.license.account_model import (
    AccountAction,
    AccountStatus,
    ApiKey,
    KeyAction,
    KeyKind,
    KeyStatus,
    next_account_status,
    refuse_key_action,
)
from services.license.catalog_model import Policy
from services.license.model import Action, License, Status
from services.license.periods import first_expiry
from services.license.terms import CheckInInterval, Overrides, Template, Terms
from shared.errors import DomainError, Reason
from shared.etags import etag_of, refuse_stale
from tests.helpers.builders import LIFE, table

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
MONTH = timedelta(days=30)
TERMS = Terms(duration=MONTH, require_check_in=True, check_in_interval=CheckInInterval.YEAR)

ACCOUNT_LIFE = table(
    """
               suspend    reinstate
    active     suspended  -
    suspended  -          active
    """
)
KEY_LIFE = table(
    """
              rotate  revoke
    active    yes     yes
    rotating  -       yes
    expired   -       yes
    revoked   -       -
    """
)


def license_in(status: str) -> License:
    """A license whose effective status at NOW is `status`."""
    expires_at = NOW - timedelta(hours=1) if status == "expired" else NOW + timedelta(days=1)
    stored = Status.ACTIVE if status == "expired" else Status(status)
    long_ago = NOW - timedelta(days=9)
    return License(
        "lic_1", None, "prod_1", "pol_1", None, None, "", stored, "why", "XYZW", None, expires_at, long_ago, long_ago, None,
        Overrides(), {}, {}, 7, long_ago, long_ago, TERMS, None, uses=1,
    )  # fmt: skip


def under(license_: License, **terms: Any) -> License:
    """The license under other terms."""
    return replace(license_, terms=replace(license_.terms, **terms))


def other_policy(**terms: Any) -> Policy:
    """Another policy of the same product."""
    chosen = replace(TERMS, **terms)
    return Policy("pol_2", None, "prod_1", "", Template.CUSTOM, chosen, None, {}, {}, 1, NOW, NOW)


def act(license_: License, action: Action) -> License:  # noqa: PLR0911 - one line for each action
    match action:
        case Action.SUSPEND | Action.REVOKE | Action.BAN:
            return transitions.change_status(license_, action, "because", NOW)
        case Action.REINSTATE:
            expired = license_.status_at(NOW) is Status.EXPIRED
            return transitions.reinstate(license_, NOW + MONTH if expired else None, NOW)
        case Action.RENEW:
            return transitions.renew(license_, NOW)
        case Action.CHANGE_TIER:
            return transitions.change_tier(license_, "tier_1", NOW)
        case Action.CHANGE_POLICY:
            return transitions.change_policy(license_, other_policy(), NOW)
        case Action.TRANSFER:
            return transitions.transfer(license_, "cus_1", NOW)
        case Action.CHECK_IN:
            return transitions.check_in(license_, NOW)
        case Action.INCREMENT_USES | Action.DECREMENT_USES | Action.RESET_USES:
            return transitions.count_uses(license_, action, 1, NOW)
        case Action.UPDATE:
            return transitions.update(license_, {"display_name": "other"}, NOW)
        case Action.ROTATE_KEY:
            return transitions.rotate_key(license_, "HINT", NOW)
        case Action.DELETE:
            raise AssertionError("a license that is deleted has no state to compute")


def reason_of(error: DomainError) -> tuple[Reason, dict[str, str]]:
    return error.reason, dict(error.metadata)


def test_the_table_names_every_pair() -> None:
    assert set(LIFE) == {(status.value, action.value) for status in Status for action in Action}


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.DELETE])
@pytest.mark.parametrize("status", list(Status))
def test_licenses(status: Status, action: Action) -> None:
    before = license_in(status.value)
    expected = LIFE[status.value, action.value]
    if expected == "-":
        with pytest.raises(DomainError) as caught:
            act(before, action)
        assert reason_of(caught.value) == (
            Reason.STATE_TRANSITION_INVALID,
            {"from": status.value, "action": action.value},
        )
        return
    after = act(before, action)
    assert after.status_at(NOW).value == expected
    if action not in {Action.INCREMENT_USES, Action.DECREMENT_USES, Action.RESET_USES}:
        assert (after.revision, after.updated_at) == (8, NOW)
    assert after.status is not Status.EXPIRED, "expiry is computed, never stored"


def test_a_license_expires_in_the_very_instant() -> None:
    for offset, expected in ((-TICK, Status.EXPIRED), (timedelta(0), Status.EXPIRED), (TICK, Status.ACTIVE)):
        assert replace(license_in("active"), expires_at=NOW + offset).status_at(NOW) is expected
    assert replace(license_in("active"), expires_at=None).status_at(NOW) is Status.ACTIVE
    for status in (Status.SUSPENDED, Status.REVOKED, Status.BANNED):
        assert replace(license_in(status.value), expires_at=NOW - TICK).status_at(NOW) is status


def test_renewing_extends_from_the_expiry_not_from_now() -> None:
    for status in ("active", "suspended", "expired"):
        before = license_in(status)
        assert before.expires_at is not None
        assert transitions.renew(before, NOW).expires_at == before.expires_at + MONTH


def test_renewing_what_is_long_over_may_leave_it_expired() -> None:
    before = replace(license_in("expired"), expires_at=NOW - 2 * MONTH)
    after = transitions.renew(before, NOW)
    assert after.expires_at == NOW - MONTH
    assert after.status_at(NOW) is Status.EXPIRED


@pytest.mark.parametrize(
    ("expires_at", "duration"),
    [
        pytest.param(None, MONTH, id="a license that never expires"),
        pytest.param(NOW + MONTH, None, id="a policy without a duration"),
        pytest.param(None, None, id="neither"),
    ],
)
def test_what_has_no_end_cannot_be_renewed(expires_at: datetime | None, duration: timedelta | None) -> None:
    with pytest.raises(DomainError) as caught:
        transitions.renew(under(replace(license_in("active"), expires_at=expires_at), duration=duration), NOW)
    assert reason_of(caught.value) == (Reason.POLICY_INCOMPATIBLE, {"policyId": "pol_1"})


def test_no_expiry_is_beyond_the_year_9999() -> None:
    late = datetime(9999, 12, 31, tzinfo=UTC)
    with pytest.raises(DomainError) as caught:
        transitions.renew(replace(license_in("active"), expires_at=late), NOW)
    assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "OUT_OF_RANGE")]
    with pytest.raises(DomainError):
        first_expiry(TERMS, late, NOW)
    last = datetime(9999, 12, 31, 23, 59, 58, 999_999, UTC)
    assert first_expiry(TERMS, last - MONTH, NOW) == last
    with pytest.raises(DomainError):
        first_expiry(TERMS, last - MONTH + TICK, NOW)


@pytest.mark.parametrize("expires_at", [None, NOW - TICK, NOW])
def test_an_expired_license_comes_back_only_until_a_future_moment(expires_at: datetime | None) -> None:
    with pytest.raises(DomainError) as caught:
        transitions.reinstate(license_in("expired"), expires_at, NOW)
    assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "MUST_BE_FUTURE")]
    after = transitions.reinstate(license_in("expired"), NOW + TICK, NOW)
    assert (after.status, after.expires_at, after.status_reason) == (Status.ACTIVE, NOW + TICK, "")


def test_a_suspended_license_keeps_its_own_expiry_when_it_comes_back() -> None:
    with pytest.raises(DomainError) as caught:
        transitions.reinstate(license_in("suspended"), NOW + MONTH, NOW)
    assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "NOT_EXPIRED")]
    past = replace(license_in("suspended"), expires_at=NOW - TICK)
    after = transitions.reinstate(past, None, NOW)
    assert after.expires_at == NOW - TICK
    assert after.status_at(NOW) is Status.EXPIRED


def test_a_license_never_ends_before_it_starts() -> None:
    for starts_at, expires_at, good in (
        (NOW, NOW, False), (NOW, NOW - TICK, False), (NOW, NOW + TICK, True), (None, NOW, True), (NOW, None, True),
    ):  # fmt: skip
        changes = {"starts_at": starts_at, "expires_at": expires_at}
        if good:
            transitions.update(license_in("active"), changes, NOW)
        else:
            with pytest.raises(DomainError) as caught:
                transitions.update(license_in("active"), changes, NOW)
            assert [(v.field, v.reason) for v in caught.value.violations] == [("expire_time", "BEFORE_START")]


def test_the_first_expiry_counts_from_the_start() -> None:
    start = NOW + timedelta(days=3)
    assert first_expiry(TERMS, None, NOW) == NOW + MONTH
    assert first_expiry(TERMS, start, NOW) == start + MONTH
    assert first_expiry(Terms(), start, NOW) is None


def test_a_stale_etag_is_refused_and_none_is_not() -> None:
    refuse_stale("", 7, "lic_1")
    refuse_stale(etag_of(7), 7, "lic_1")
    for stale in (etag_of(6), "7", "R7", "*"):
        with pytest.raises(DomainError) as caught:
            refuse_stale(stale, 7, "lic_1")
        assert reason_of(caught.value) == (Reason.ETAG_MISMATCH, {"id": "lic_1"})


def test_the_account_table_names_every_pair() -> None:
    assert set(ACCOUNT_LIFE) == {(s.value, a.value) for s in AccountStatus for a in AccountAction}
    assert set(KEY_LIFE) == {(s.value, a.value) for s in KeyStatus for a in KeyAction}


@pytest.mark.parametrize("action", list(AccountAction))
@pytest.mark.parametrize("status", list(AccountStatus))
def test_accounts(status: AccountStatus, action: AccountAction) -> None:
    expected = ACCOUNT_LIFE[status.value, action.value]
    if expected != "-":
        assert next_account_status(status, action).value == expected
        return
    with pytest.raises(DomainError) as caught:
        next_account_status(status, action)
    assert reason_of(caught.value) == (
        Reason.STATE_TRANSITION_INVALID,
        {"from": status.value, "action": action.value},
    )


@pytest.mark.parametrize("action", list(KeyAction))
@pytest.mark.parametrize("status", list(KeyStatus))
def test_api_keys(status: KeyStatus, action: KeyAction) -> None:
    if KEY_LIFE[status.value, action.value] == "yes":
        refuse_key_action(status, action)
        return
    with pytest.raises(DomainError) as caught:
        refuse_key_action(status, action)
    assert reason_of(caught.value) == (
        Reason.STATE_TRANSITION_INVALID,
        {"from": status.value, "action": action.value},
    )


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "replaced", "expected"),
    [
        (None, None, False, KeyStatus.ACTIVE),
        (NOW + TICK, None, False, KeyStatus.ACTIVE),
        (NOW, None, False, KeyStatus.EXPIRED),
        (NOW - TICK, None, False, KeyStatus.EXPIRED),
        (NOW + TICK, None, True, KeyStatus.ROTATING),
        (NOW, None, True, KeyStatus.EXPIRED),
        (NOW + TICK, NOW, True, KeyStatus.REVOKED),
        (NOW - TICK, NOW, False, KeyStatus.REVOKED),
    ],
)
def test_a_keys_status_is_computed(
    expires_at: datetime | None, revoked_at: datetime | None, replaced: bool, expected: KeyStatus
) -> None:
    replaced_by = "key_2" if replaced else None
    key = ApiKey(
        "key_1", None, "", ("keys:read",), "abcd", expires_at, revoked_at, replaced_by, 1, NOW, NOW, KeyKind.SECRET
    )
    assert key.status(NOW) is expected
