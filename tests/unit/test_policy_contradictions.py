"""Terms of a policy that make no sense beside each other: every combination of those that are told of in the docs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from services.license.contradictions import refuse_contradictory
from services.license.terms import TEMPLATES, WORDS, ExpirationBasis, PolicyLimit, Template, Terms
from shared.errors import DomainError, Reason

PLAIN = Terms()


def contradictions(terms: Terms) -> list[str]:
    """The terms that are refused."""
    try:
        refuse_contradictory(terms)
    except DomainError as error:
        assert error.reason is Reason.FIELD_INVALID
        assert all(violation.description for violation in error.violations)
        return [violation.field for violation in error.violations]
    return []


def with_words(**given: Any) -> Terms:
    """Terms, words as strings."""
    return replace(PLAIN, **{name: WORDS[name](value) if name in WORDS else value for name, value in given.items()})


@pytest.mark.parametrize("template", Template)
def test_no_template_contradicts_itself(template: Template) -> None:
    assert contradictions(TEMPLATES[template]) == []


@pytest.mark.parametrize("floating", [True, False])
@pytest.mark.parametrize("way", ["REJECT", "QUEUE", "EVICT_OLDEST", "EVICT_DEAD_FIRST"])
def test_seats_are_waited_for_and_taken_away_only_where_they_float(way: str, floating: bool) -> None:
    bad = way != "REJECT" and not floating
    assert contradictions(with_words(seat_acquire=way, floating=floating)) == (["seat_acquire"] if bad else [])


@pytest.mark.parametrize("cull", WORDS["heartbeat_cull"])
@pytest.mark.parametrize("resurrection", WORDS["heartbeat_resurrection"])
def test_only_machines_that_are_kept_can_always_come_back(resurrection: str, cull: str) -> None:
    bad = (resurrection, cull) == ("ALWAYS_REVIVE", "DEACTIVATE_DEAD")
    terms = with_words(heartbeat_resurrection=resurrection, heartbeat_cull=cull)
    assert contradictions(terms) == (["heartbeat_resurrection"] if bad else [])


@pytest.mark.parametrize(
    ("leasing", "limit", "default"),
    [("machine_leasing", "max_machines", "PER_LICENSE"), ("process_leasing", "max_processes", "PER_MACHINE")],
)
def test_what_a_limit_counts_over_needs_a_limit(leasing: str, limit: str, default: str) -> None:
    for word, value, overridable in product(WORDS[leasing], (None, 1), PolicyLimit):
        terms = with_words(**{leasing: word, limit: value, "overridable": (overridable,)})
        bad = word != default and value is None and overridable is not PolicyLimit[limit.upper()]
        assert contradictions(terms) == ([leasing] if bad else []), (word, value, overridable)


def test_transfers_are_counted_where_they_are_not_free() -> None:
    for most, floating, allowed in product((None, 0, 5), (True, False), (True, False)):
        terms = replace(PLAIN, max_transfers=most, floating=floating, allow_machine_transfer=allowed)
        bad = most is not None and floating and not allowed
        assert contradictions(terms) == (["max_transfers"] if bad else [])


@pytest.mark.parametrize("basis", ExpirationBasis)
def test_what_counts_later_needs_something_to_count(basis: ExpirationBasis) -> None:
    later = basis is not ExpirationBasis.FROM_CREATION
    day = timedelta(days=1)
    assert contradictions(replace(PLAIN, expiration_basis=basis)) == (["expiration_basis"] if later else [])
    assert contradictions(replace(PLAIN, expiration_basis=basis, duration=day)) == []
    assert contradictions(replace(PLAIN, expiration_basis=basis, is_trial=True, trial_duration=day)) == []


def test_all_are_named_at_once() -> None:
    terms = with_words(
        trial_duration=timedelta(days=1), uses_counted_by="VALIDATION", require_check_in=True, machine_leasing="PER_USER",
        process_leasing="PER_LICENSE", seat_acquire="QUEUE", heartbeat_resurrection="ALWAYS_REVIVE",
    )  # fmt: skip
    assert contradictions(terms) == [
        "trial_duration", "uses_counted_by", "check_in_interval", "machine_leasing", "process_leasing", "seat_acquire",
        "heartbeat_resurrection",
    ]  # fmt: skip
