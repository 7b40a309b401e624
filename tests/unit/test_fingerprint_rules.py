"""Which sets of components are that of a known machine, and which sets can be presented at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import FieldViolation
from shared.rules.fingerprints import (
    MatchingRule,
    check_fingerprint,
    check_set,
    is_met,
    match,
    matching_machines,
    needed,
)

ANY, TWO, MOST, ALL = MatchingRule
NAMES = tuple("abcdefghijklmnopqrst")

# How many must match, of 1, 2, 3, ... presented.
NEEDED = {
    ANY: (1, 1, 1, 1, 1, 1, 1),
    TWO: (1, 2, 2, 2, 2, 2, 2),
    MOST: (1, 1, 2, 2, 3, 3, 4),
    ALL: (1, 2, 3, 4, 5, 6, 7),
}


def set_of(*names: str) -> dict[str, list[bytes]]:
    """A presented set; each component's hash is its name."""
    return {name: [name.encode()] for name in names}


def known_of(*names: str) -> set[bytes]:
    return {name.encode() for name in names}


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[MatchingRule, list[str], list[str]]:
    """A rule, the names of what is presented, and of what is known."""
    presented = draw(st.lists(st.sampled_from(NAMES), unique=True))
    known = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return draw(st.sampled_from(MatchingRule)), presented, known


def met(rule: MatchingRule, presented: list[str], known: list[str]) -> bool:
    return match(rule, set_of(*presented), known_of(*known)).is_met


@pytest.mark.parametrize("rule", MatchingRule)
def test_what_each_rule_needs(rule: MatchingRule) -> None:
    assert tuple(needed(rule, n) for n in range(1, 8)) == NEEDED[rule]


@pytest.mark.parametrize("rule", MatchingRule)
def test_no_rule_is_met_by_an_empty_set(rule: MatchingRule) -> None:
    assert not is_met(rule, presented=0, matched=0)
    assert not match(rule, {}, known_of("a")).is_met
    assert matching_machines(rule, []) == []
    assert matching_machines(rule, [(), ()]) == []
    for nothing in (0, -1):
        with pytest.raises(ValueError, match="empty set"):
            needed(rule, nothing)


@pytest.mark.parametrize("rule", MatchingRule)
def test_a_plain_fingerprint_is_known_or_not_under_every_rule(rule: MatchingRule) -> None:
    assert match(rule, {"": [b"x"]}, {b"x", b"y"}).is_met
    assert not match(rule, {"": [b"z"]}, {b"x", b"y"}).is_met


def test_a_match_names_what_was_known_and_what_was_not() -> None:
    found = match(MOST, set_of("mac", "root_disk", "machine_id"), known_of("machine_id", "mac", "board_serial"))
    assert (found.matched, found.missing, found.is_met) == (("mac", "machine_id"), ("root_disk",), True)


def test_a_component_is_known_by_its_hash_under_any_live_version() -> None:
    presented = {"mac": [b"new", b"old"], "disk": [b"newer", b"older"]}
    assert match(ALL, presented, {b"old", b"newer"}).is_met
    assert match(ALL, presented, {b"old", b"new"}).missing == ("disk",)


@given(comparisons())
def test_a_rule_counts_the_presented_components_that_are_known(case: tuple[MatchingRule, list[str], list[str]]) -> None:
    rule, presented, known = case
    common = len(set(presented) & set(known))
    enough = {ANY: common >= 1, TWO: common >= min(2, len(presented)), MOST: 2 * common >= len(presented)}
    assert met(rule, presented, known) == (bool(presented) and enough.get(rule, common == len(presented)))


@given(comparisons())
def test_stricter_rules_imply_the_laxer_ones(case: tuple[MatchingRule, list[str], list[str]]) -> None:
    _, presented, known = case
    answers = {rule: met(rule, presented, known) for rule in MatchingRule}
    assert answers[ALL] <= answers[MOST] <= answers[ANY]
    assert answers[ALL] <= answers[TWO] <= answers[ANY]
    if len(presented) >= 3:
        assert answers[MOST] <= answers[TWO]


@given(comparisons(), st.sampled_from(NAMES))
def test_knowing_more_never_unmakes_a_match(case: tuple[MatchingRule, list[str], list[str]], more: str) -> None:
    rule, presented, known = case
    assert met(rule, presented, known) <= met(rule, presented, [*known, more])


@given(comparisons(), st.sampled_from(NAMES))
def test_presenting_what_is_known_never_harms_and_what_is_not_never_helps(
    case: tuple[MatchingRule, list[str], list[str]], more: str
) -> None:
    rule, presented, known = case
    if more in presented:
        return
    before, after = met(rule, presented, known), met(rule, [*presented, more], known)
    assert before <= after if more in known else after <= before


@given(comparisons())
def test_the_order_of_components_does_not_matter(case: tuple[MatchingRule, list[str], list[str]]) -> None:
    rule, presented, known = case
    assert met(rule, presented, known) == met(rule, presented[::-1], known[::-1])


@given(st.sampled_from(MatchingRule), st.lists(st.sets(st.sampled_from(["mach_1", "mach_2", "mach_3"]))))
def test_by_holders_the_same_machines_match_as_one_by_one(rule: MatchingRule, holders: list[set[str]]) -> None:
    """What facts give (for each component the machines that have it) and what a machine's row gives agree."""
    presented = {f"c{n}": [bytes([n])] for n in range(len(holders))}
    found = matching_machines(rule, holders)
    matched: dict[str, int] = {}
    for machine in ("mach_1", "mach_2", "mach_3"):
        known = {bytes([n]) for n, machines in enumerate(holders) if machine in machines}
        assert match(rule, presented, known).is_met == (machine in found)
        matched[machine] = len(known)
    assert found == sorted(found, key=lambda machine: (-matched[machine], machine))


def test_of_several_machines_the_one_with_most_in_common_decides_then_the_oldest() -> None:
    assert matching_machines(ANY, [["mach_2", "mach_1"], ["mach_3"], ["mach_3"]]) == ["mach_3", "mach_1", "mach_2"]
    assert matching_machines(TWO, [["mach_2", "mach_1"], ["mach_3"], ["mach_3"]]) == ["mach_3"]
    assert matching_machines(ANY, [["mach_1", "mach_1"], ["mach_2"], ["mach_2"]]) == ["mach_2", "mach_1"]


@pytest.mark.parametrize("value", ["12345678", "x" * 256, "é" * 8, "a b c d e", "a\u00a0bcdefgh", "𝟘" * 8])
def test_a_fingerprint_of_8_to_256_characters_is_good(value: str) -> None:
    assert not list(check_fingerprint(value, "fingerprint"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "REQUIRED"),
        ("1234567", "LENGTH_OUT_OF_RANGE"),
        ("x" * 257, "LENGTH_OUT_OF_RANGE"),
        *((f"1234567{bad}", "FORMAT_INVALID") for bad in "\x00\t\n\r\x1b\x7f\x85\x9f\ud800"),
    ],
)
def test_any_other_is_named(value: str, reason: str) -> None:
    (found,) = check_fingerprint(value, "machine.fingerprint")
    assert (found.field, found.reason) == ("machine.fingerprint", reason)
    assert len(value) < 7 or value[:7] not in found.description


def test_a_set_has_1_to_20_components() -> None:
    many = [(f"c{n}", f"value-{n:03}") for n in range(21)]
    assert not list(check_set(many[:1], "components"))
    assert not list(check_set(many[:20], "components"))
    assert list(check_set(many, "components")) == [FieldViolation("components", "TOO_MANY", "at most 20")]
    assert list(check_set([], "components")) == [FieldViolation("components", "REQUIRED", "at least 1")]


@pytest.mark.parametrize("name", ["", "A", "a-b", "é", "a b", "a" * 33, "a\n"])
def test_a_components_name_has_its_form(name: str) -> None:
    (found,) = check_set([("a" * 32, "12345678"), (name, "87654321")], "set.components")
    assert (found.field, found.reason) == ("set.components[1].name", "FORMAT_INVALID")


def test_every_bad_component_of_a_set_is_named_at_once() -> None:
    given_set = [("mac", "12345678"), ("mac", "short"), ("disk", "12345678"), ("no-name", "")]
    assert [(bad.field, bad.reason) for bad in check_set(given_set, "c")] == [
        ("c[1].name", "DUPLICATE"),
        ("c[1].fingerprint", "LENGTH_OUT_OF_RANGE"),
        ("c[2].fingerprint", "DUPLICATE"),
        ("c[3].name", "FORMAT_INVALID"),
        ("c[3].fingerprint", "REQUIRED"),
    ]
