"""How a decision reads facts: one that is not known is not taken for absent."""

from __future__ import annotations

from typing import TypeVar

from shared.freshness.reader import View

T = TypeVar("T")


class UnknownFactError(Exception):
    """A fact is not known, or is too old for what it is asked: only a load can tell."""


def value_of(view: View, key: str, kind: type[T]) -> T | None:
    """What a fact says; None where there is no such thing. UnknownFactError."""
    fact = view.get(key)
    if fact is None:
        raise UnknownFactError
    assert fact.value is None or isinstance(fact.value, kind)
    return fact.value


def needed(view: View, key: str, kind: type[T]) -> T:
    """The same of what is there. UnknownFactError."""
    value = value_of(view, key, kind)
    if value is None:  # never in facts of one state: what refers to it would be gone with it
        raise UnknownFactError
    return value
