"""Fingerprints of machines: their form, and when a set of components is that of a known machine. Pure.

A caller presents one or several components; of a machine the keyed hashes of its components are known. A rule says how many
of those presented must be known. It counts what is presented, not what is known: a caller may know less of its machine than
it once did, and a component of which it says nothing never counts against it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from shared.errors import FieldViolation

MIN_CHARS: Final = 8
MAX_CHARS: Final = 256
MAX_COMPONENTS: Final = 20
NAME_PATTERN: Final = "^[a-z0-9_]{1,32}$"
_NAME: Final = re.compile(r"[a-z0-9_]{1,32}")
# Control characters and lone surrogates; the latter cannot be encoded, so they cannot be hashed either.
_REFUSED: Final = frozenset({"Cc", "Cs"})


class MatchingRule(StrEnum):
    """How many of the presented components must be known of one machine."""

    MATCH_ANY = "MATCH_ANY"
    MATCH_TWO = "MATCH_TWO"
    MATCH_MOST = "MATCH_MOST"
    MATCH_ALL = "MATCH_ALL"


def needed(rule: MatchingRule, presented: int) -> int:
    """How many of `presented` components must match: from 1 to `presented`.

    MATCH_TWO with one component presented needs that one: it asks for two where there are two, and does not refuse callers
    whose machine has a single fingerprint. Half of an even number is most of it (2 of 4).

    Raises:
        ValueError: Nothing is presented, which no rule is met by.
    """
    if presented < 1:
        raise ValueError("no rule is met by an empty set")
    match rule:
        case MatchingRule.MATCH_ANY:
            return 1
        case MatchingRule.MATCH_TWO:
            return min(2, presented)
        case MatchingRule.MATCH_MOST:
            return (presented + 1) // 2
        case MatchingRule.MATCH_ALL:
            return presented
    assert_never(rule)


def is_met(rule: MatchingRule, *, presented: int, matched: int) -> bool:
    """Whether `matched` of `presented` components are enough; never for an empty set."""
    return presented > 0 and matched >= needed(rule, presented)


@dataclass(frozen=True, slots=True)
class Match:
    """How a presented set compares with one machine. `matched` and `missing` are names of components, in order."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    is_met: bool


def match(rule: MatchingRule, presented: Mapping[str, Collection[bytes]], known: Collection[bytes]) -> Match:
    """Compares what is presented with what is known of one machine.

    Args:
        rule: The policy's.
        presented: By the component's name (empty for a plain fingerprint) its hash under each live version of the secret:
            a component is known when one of them is.
        known: The hashes of the machine's components, as the record keeps them.
    """
    matched = tuple(name for name, hashes in presented.items() if any(one in known for one in hashes))
    missing = tuple(name for name in presented if name not in matched)
    return Match(matched, missing, is_met(rule, presented=len(presented), matched=len(matched)))


def matching_machines(rule: MatchingRule, holders: Sequence[Collection[str]]) -> list[str]:
    """The machines that a presented set is the fingerprint of, the one that decides first.

    That is the one with most components in common, and of several the one with the smallest id, which is the oldest.

    Args:
        rule: The policy's.
        holders: For each presented component the ids of the machines that have it, none for an unknown one.
    """
    counts = Counter(machine for machines in holders for machine in set(machines))
    met = (machine for machine, count in counts.items() if is_met(rule, presented=len(holders), matched=count))
    return sorted(met, key=lambda machine: (-counts[machine], machine))


def check_fingerprint(value: str, path: str) -> Iterator[FieldViolation]:
    """What is wrong with one fingerprint, or with the value of a component."""
    if not value:
        yield FieldViolation(path, "REQUIRED", "is required")
    elif not MIN_CHARS <= len(value) <= MAX_CHARS:
        yield FieldViolation(path, "LENGTH_OUT_OF_RANGE", f"must be {MIN_CHARS} to {MAX_CHARS} characters")
    elif any(unicodedata.category(letter) in _REFUSED for letter in value):
        yield FieldViolation(path, "FORMAT_INVALID", "must have no control characters")


def check_set(components: Sequence[tuple[str, str]], path: str) -> Iterator[FieldViolation]:
    """What is wrong with a set of (name, fingerprint), whose list of NamedFingerprint is the field at `path`.

    One fingerprint under two names would count twice, so fingerprints are unique as well as names.
    """
    if not components:
        yield FieldViolation(path, "REQUIRED", "at least 1")
    elif len(components) > MAX_COMPONENTS:
        # Nothing of so long a list is looked at, let alone answered.
        yield FieldViolation(path, "TOO_MANY", f"at most {MAX_COMPONENTS}")
        return
    names, values = set[str](), set[str]()
    for n, (name, value) in enumerate(components):
        if not _NAME.fullmatch(name):
            yield FieldViolation(f"{path}[{n}].name", "FORMAT_INVALID", f"must match {NAME_PATTERN}")
        elif name in names:
            yield FieldViolation(f"{path}[{n}].name", "DUPLICATE", "another component has this name")
        wrong = list(check_fingerprint(value, f"{path}[{n}].fingerprint"))
        if not wrong and value in values:
            wrong = [FieldViolation(f"{path}[{n}].fingerprint", "DUPLICATE", "another component has this fingerprint")]
        yield from wrong
        names.add(name)
        values.add(value)
