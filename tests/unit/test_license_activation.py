"""What becomes of a license whose duration counts from its first machine on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from services.license.boundary_model import course_of, due
from services.license.catalog_model import Policy
from services.license.contradictions import refuse_stricter_uniqueness
from services.license.model import License, Status, counted
from services.license.terms import (
    ExpirationBasis,
    ExpirationStrategy,
    Overrides,
    Template,
    Terms,
    TransferStrategy,
)
from services.license.transitions import change_policy, reinstate, renew, update
from shared.errors import DomainError, Reason
from shared.rules.machine_terms import MachineUniqueness

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
ACTIVATION = Terms(duration=30 * DAY, expiration_basis=ExpirationBasis.FROM_FIRST_ACTIVATION)


def license_under(
    terms: Terms, first: datetime | None, starts_at: datetime | None = None, status: Status = Status.ACTIVE
) -> License:
    """As it is read: unanchored, with its first machine at `first`."""
    return counted(
        License(
            "lic_1", None, "prod_1", "pol_1", None, None, "", status, "", "1234", starts_at, None, None, None, None,
            Overrides(), {}, {}, 1, NOW - 400 * DAY, NOW, terms, first_activated_at=first,
        )
    )  # fmt: skip


def policy_of(terms: Terms) -> Policy:
    return Policy("pol_2", None, "prod_1", "", Template.CUSTOM, terms, None, {}, {}, 1, NOW, NOW)


@pytest.mark.parametrize("grace", [timedelta(0), 3 * DAY])
@pytest.mark.parametrize("strategy", ["RESTRICT_ACCESS", "REVOKE", "ALLOW_ACCESS"])
def test_it_ends_with_its_grace_in_the_very_instant(grace: timedelta, strategy: str) -> None:
    terms = replace(ACTIVATION, grace_period=grace, expiration_strategy=ExpirationStrategy(strategy))
    over = Status.REVOKED if strategy == "REVOKE" else Status.EXPIRED
    license_ = license_under(terms, NOW)
    end = NOW + 30 * DAY + grace
    states = [license_.status_at(at) for at in (end - TICK, end, end + TICK)]
    assert states == [Status.ACTIVE, over, over]
    assert license_under(terms, None).status_at(NOW + 9999 * DAY) is Status.ACTIVE


def test_a_trial_lasts_as_long_as_trials_do() -> None:
    terms = replace(ACTIVATION, is_trial=True, trial_duration=7 * DAY)
    assert license_under(terms, NOW).expires_at == NOW + 7 * DAY
    assert renew(license_under(terms, NOW), NOW + DAY).expires_at == NOW + 37 * DAY


def test_a_renewal_sets_what_counted() -> None:
    before = license_under(ACTIVATION, NOW - DAY)
    after = renew(before, NOW)
    assert (after.expires_at, after.expiry_anchored_at) == (NOW + 59 * DAY, NOW)
    assert counted(replace(after, terms=replace(ACTIVATION, duration=DAY))).expires_at == NOW + 59 * DAY
    with pytest.raises(DomainError) as caught:
        renew(license_under(ACTIVATION, None), NOW)
    assert caught.value.reason is Reason.POLICY_INCOMPATIBLE


def test_an_expired_one_comes_back_with_the_expiry_that_it_is_given() -> None:
    expired = license_under(ACTIVATION, NOW - 31 * DAY)
    assert expired.status_at(NOW) is Status.EXPIRED
    back = reinstate(expired, NOW + DAY, NOW)
    assert (back.expires_at, counted(back).expires_at, back.status_at(NOW)) == (NOW + DAY, NOW + DAY, Status.ACTIVE)
    suspended = license_under(ACTIVATION, NOW - DAY, status=Status.SUSPENDED)
    assert (reinstate(suspended, None, NOW).expires_at, reinstate(suspended, None, NOW).expiry_anchored_at) == (
        NOW + 29 * DAY,
        None,
    )


@pytest.mark.parametrize(
    ("starts_at", "expected"),
    [(None, NOW + 29 * DAY), (NOW - DAY - TICK, NOW + 29 * DAY), (NOW - DAY + TICK, NOW + 29 * DAY + TICK)],
)
def test_another_start_moves_what_counts(starts_at: datetime | None, expected: datetime) -> None:
    changed = update(license_under(ACTIVATION, NOW - DAY, starts_at=NOW - 5 * DAY), {"starts_at": starts_at}, NOW)
    assert (changed.expires_at, changed.expiry_anchored_at) == (expected, None)


@pytest.mark.parametrize("expires_at", [None, NOW + DAY])
def test_an_expiry_that_is_set_no_longer_counts(expires_at: datetime | None) -> None:
    changed = update(license_under(ACTIVATION, NOW - DAY), {"expires_at": expires_at}, NOW)
    assert (changed.expires_at, changed.expiry_anchored_at) == (expires_at, NOW)
    assert counted(changed) == changed


KEPT, BEGUN, WAITS = "kept", "begun", "waits"
CREATION, VALIDATION, FROM_MACHINE = (
    ExpirationBasis.FROM_CREATION, ExpirationBasis.FROM_FIRST_VALIDATION, ExpirationBasis.FROM_FIRST_ACTIVATION,
)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "has_machine", "strategy", "new", "expected"),
    [
        # One that counts from its machine, and goes.
        (FROM_MACHINE, True, "KEEP_EXPIRY", CREATION, KEPT),
        (FROM_MACHINE, True, "KEEP_EXPIRY", VALIDATION, KEPT),
        (FROM_MACHINE, True, "KEEP_EXPIRY", FROM_MACHINE, KEPT),
        (FROM_MACHINE, True, "RESET_EXPIRY", CREATION, BEGUN),
        (FROM_MACHINE, True, "RESET_EXPIRY", VALIDATION, WAITS),
        (FROM_MACHINE, True, "RESET_EXPIRY", FROM_MACHINE, BEGUN),
        # One that waits for its machine, and goes.
        (FROM_MACHINE, False, "KEEP_EXPIRY", CREATION, BEGUN),
        (FROM_MACHINE, False, "KEEP_EXPIRY", VALIDATION, WAITS),
        (FROM_MACHINE, False, "KEEP_EXPIRY", FROM_MACHINE, WAITS),
        (FROM_MACHINE, False, "RESET_EXPIRY", FROM_MACHINE, WAITS),
        # One that waits for something else, and comes.
        (VALIDATION, True, "KEEP_EXPIRY", FROM_MACHINE, BEGUN),
        (VALIDATION, True, "RESET_EXPIRY", FROM_MACHINE, BEGUN),
        (VALIDATION, False, "KEEP_EXPIRY", FROM_MACHINE, WAITS),
        (VALIDATION, False, "RESET_EXPIRY", FROM_MACHINE, WAITS),
    ],
)
def test_the_expiry_under_another_policy(
    old: ExpirationBasis, has_machine: bool, strategy: str, new: ExpirationBasis, expected: str
) -> None:
    before = license_under(replace(ACTIVATION, expiration_basis=old), NOW - DAY if has_machine else None)
    terms = Terms(duration=3 * DAY, expiration_basis=new, transfer_strategy=TransferStrategy(strategy))
    moved = change_policy(before, policy_of(terms), NOW)
    ends = {KEPT: NOW + 29 * DAY, BEGUN: NOW + 3 * DAY, WAITS: None}
    assert moved.expires_at == ends[expected]
    assert (moved.expiry_anchored_at is not None) is (expected != WAITS)
    assert counted(moved).expires_at == moved.expires_at, "and so it is read again"


@pytest.mark.parametrize(
    ("duration", "every"),
    [
        (timedelta(hours=1), timedelta(minutes=6)),
        (10 * DAY - TICK, DAY - TICK / 10),
        (10 * DAY, DAY),
        (3650 * DAY, DAY),
    ],
)
def test_one_that_waits_is_looked_at_often_enough(duration: timedelta, every: timedelta) -> None:
    terms = replace(ACTIVATION, duration=duration)
    found = due(course_of(license_under(terms, None)), {}, NOW)
    assert (found.tell, found.look_at) == ((), NOW + every)
    # With a machine right after the look, the next look is before its end.
    assert found.look_at is not None
    assert found.look_at < NOW + duration
    later = due(course_of(license_under(terms, NOW + TICK)), {}, found.look_at)
    assert later.look_at is not None
    assert found.look_at < later.look_at <= NOW + TICK + duration


def test_nobody_looks_at_one_that_is_stopped_or_waits_for_nothing() -> None:
    assert due(course_of(license_under(ACTIVATION, None, status=Status.SUSPENDED)), {}, NOW).look_at is None
    assert due(course_of(license_under(Terms(), None)), {}, NOW).look_at is None
    ended = license_under(ACTIVATION, NOW - 400 * DAY)
    assert due(course_of(ended), {}, NOW).look_at is None


ORDER = ["UNIQUE_PER_LICENSE", "UNIQUE_PER_POLICY", "UNIQUE_PER_PRODUCT", "UNIQUE_PER_ACCOUNT"]


@pytest.mark.parametrize("new", ORDER)
@pytest.mark.parametrize("old", ORDER)
def test_machines_are_not_made_unique_among_more(old: str, new: str) -> None:
    assert [word.value for word in MachineUniqueness] == ORDER
    before, after = (Terms(machine_uniqueness=MachineUniqueness(word)) for word in (old, new))
    for moves, any_machines in product((True, False), repeat=2):
        stricter = ORDER.index(new) > ORDER.index(old) or (moves and old == new == "UNIQUE_PER_POLICY")
        refused = False
        try:
            refuse_stricter_uniqueness(before, after, "pol_1", moves=moves, any_machines=any_machines)
        except DomainError as error:
            refused = True
            assert (error.reason, error.metadata) == (Reason.POLICY_INCOMPATIBLE, {"policyId": "pol_1"})
        assert refused is (stricter and any_machines)
