"""A long collection is the last one that looks at what it has left; what is let go is gone all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Generator

import pytest

from shared import garbage
from shared.garbage import keep_collections_short


class Held:
    """What a collection looks at."""


@pytest.fixture(autouse=True, name="_thawed")
def _thawed() -> Generator[None]:
    yield
    gc.unfreeze()
    gc.collect()


def test_what_a_long_collection_leaves_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "LONG_S", 0.0)
    end = keep_collections_short()
    try:
        before = gc.get_freeze_count()
        held = [Held() for _ in range(1000)]
        gc.collect(1)
        assert gc.get_freeze_count() == before, "a short one of young objects"
        gc.collect()
        assert gc.get_freeze_count() >= before + 1000
        last = weakref.ref(held[-1])
        held.clear()
        assert last() is None, "it is gone with the last who knows it"
    finally:
        end()
    before = gc.get_freeze_count()
    held = [Held() for _ in range(1000)]
    gc.collect()
    assert gc.get_freeze_count() <= before


def test_a_circle_that_is_let_go_before_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "LONG_S", 0.0)
    end = keep_collections_short()
    try:
        one, other = Held(), Held()
        one.other, other.other = other, one  # pyright: ignore[reportAttributeAccessIssue]
        seen = weakref.ref(one)
        del one, other
        gc.collect()
        assert seen() is None
    finally:
        end()


def test_a_short_collection_freezes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "LONG_S", 3600.0)
    end = keep_collections_short()
    try:
        before = gc.get_freeze_count()
        gc.collect()
        assert gc.get_freeze_count() == before
    finally:
        end()
