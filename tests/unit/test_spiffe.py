"""SPIFFE IDs and the patterns that cover them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.spiffe import SpiffeId, parse_id, parse_pattern

LONGEST = "spiffe://" + "d" * 255 + "/" + "s" * (2048 - 9 - 255 - 1)

IDS = [
    "spiffe://prod.acme/ns/billing/api",
    "spiffe://a/b",
    "spiffe://a-b_c.1/A.b_C-9",
    "spiffe://1.2.3.4/x",
    "spiffe://a/.../..a/.b",
    LONGEST,
]

NEITHER = [
    "",
    "spiffe://",
    "spiffe://a",
    "spiffe:///a",
    "spiffe://a/",
    "spiffe://a/b/",
    "spiffe://a//b",
    "spiffe://a/./b",
    "spiffe://a/../b",
    "spiffe://a/b/.",
    "spiffe://a/b/..",
    "spiffe://A/b",
    "SPIFFE://a/b",
    "Spiffe://a/b",
    "https://a/b",
    "spiffe:/a/b",
    "spiffe://a:80/b",
    "spiffe://u@a/b",
    "spiffe://a/b?c",
    "spiffe://a/b#c",
    "spiffe://a/b%20c",
    "spiffe://a/b c",
    "spiffe://a/b\n",
    "spiffe://a\n/b",
    "spiffe://a/ü",
    "spiffe://ä/b",
    "spiffe://a*/b",
    "spiffe://*/b",
    "spiffe://a/*/b",
    "spiffe://a/*/*",
    "spiffe://a/b*",
    "spiffe://a/*b",
    "spiffe://a/**",
    "spiffe://*",
    "*",
    " spiffe://a/b",
    "spiffe://a/\ud800",
    LONGEST + "s",
    "spiffe://" + "d" * 256 + "/s",
]

PATTERNS = ["spiffe://a/*", "spiffe://prod.acme/ns/billing/*", LONGEST[:-2] + "/*"]


@pytest.mark.parametrize("text", IDS)
def test_an_id_is_a_pattern_too_and_is_written_as_it_was_read(text: str) -> None:
    spiffe_id, pattern = parse_id(text), parse_pattern(text)
    assert spiffe_id is not None
    assert pattern is not None
    assert str(pattern) == text == f"spiffe://{spiffe_id.trust_domain}{spiffe_id.path}"


@pytest.mark.parametrize("text", PATTERNS)
def test_a_pattern_with_a_star_is_no_id(text: str) -> None:
    assert parse_id(text) is None
    assert str(parse_pattern(text)) == text


@pytest.mark.parametrize("text", NEITHER)
def test_what_is_neither(text: str) -> None:
    assert parse_id(text) is None
    assert parse_pattern(text) is None


def test_the_more_exact_pattern_decides() -> None:
    assert SpiffeId("prod.acme", "/ns/billing/api").covering_paths() == (
        "/ns/billing/api",
        "/ns/billing/*",
        "/ns/*",
        "/*",
    )


SEGMENTS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)


def covers(pattern: list[str], path: list[str]) -> bool:
    """By the definition: segment by segment, a last star for one or more."""
    if pattern[-1] == "*":
        return len(path) >= len(pattern) and path[: len(pattern) - 1] == pattern[:-1]
    return path == pattern


@given(st.one_of(SEGMENTS, SEGMENTS.map(lambda some: [*some[:-1], "*"])), SEGMENTS)
def test_the_covering_paths_are_those_of_the_patterns_that_cover(pattern: list[str], path: list[str]) -> None:
    paths = SpiffeId("d", "/" + "/".join(path)).covering_paths()
    assert ("/" + "/".join(pattern) in paths) == covers(pattern, path)
    assert len(paths) == len(set(paths)) == len(path) + 1


@given(SEGMENTS)
def test_whoever_a_more_exact_pattern_lets_in_a_less_exact_one_would(path: list[str]) -> None:
    """So the order of covering paths is the order of exactness: each is let in by all that follow."""
    paths = SpiffeId("d", "/" + "/".join(path)).covering_paths()
    for n, narrow in enumerate(paths):
        inside = narrow.replace("*", "x").split("/")[1:]
        assert all(covers(wide.split("/")[1:], inside) for wide in paths[n + 1 :])
