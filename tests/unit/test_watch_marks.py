"""When what a stream has told is due again, and what touches it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.license.watch_marks import Dues, Group, Marks, Narrowed

START = datetime(2031, 1, 1, tzinfo=UTC)
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "drop", "due"]), st.integers(0, 4), st.none() | st.integers(0, 20)), max_size=200
)


@given(STEPS)
def test_each_license_is_due_once_at_the_last_time_that_was_said(steps: list[tuple[str, int, int | None]]) -> None:
    dues, model = Dues(), dict[str, datetime | None]()
    for action, number, seconds in steps:
        which = f"lic_{number}"
        at = None if seconds is None else START + timedelta(seconds=seconds)
        if action == "put":
            dues.put(which, at)
            model[which] = at
        elif action == "drop":
            dues.drop(which)
            model.pop(which, None)
        else:
            now = START + timedelta(seconds=seconds or 0)
            found = dues.due(now, 3)
            expected = sorted((due, one) for one, due in model.items() if due is not None and due <= now)[:3]
            assert [(due, one) for one, due in found] == expected
            model.update(dict.fromkeys((one for one, _ in found), None))
        assert len(dues) == len(model)
        assert all(one in dues for one in model)
        assert dues.next == min((due for due in model.values() if due is not None), default=None)


PRODUCT, POLICY = Group("product_id", "x"), Group("policy_id", "x")
TOUCHES: list[tuple[Narrowed, str, list[str], Group | None]] = [
    (Narrowed(), "license", ["x"], None),
    (Narrowed(), "seats", ["x"], None),
    (Narrowed(policy_id="y"), "seats", ["x"], None),
    (Narrowed(license_ids=("y", "z")), "seats", [], None),
    (Narrowed(), "policy", [], POLICY),
    (Narrowed(), "product", [], PRODUCT),
    (Narrowed(), "tier", [], PRODUCT),
    (Narrowed(), "customer", [], Group("customer_id", "x")),
    (Narrowed(product_id="x"), "tier", [], PRODUCT),
    (Narrowed(product_id="y"), "tier", [], None),
    (Narrowed(product_id="y"), "product", [], None),
    (Narrowed(product_id="y"), "policy", [], POLICY),
    (Narrowed(policy_id="x"), "policy", [], POLICY),
    (Narrowed(policy_id="y"), "policy", [], None),
    (Narrowed(policy_id="y"), "license", ["x"], None),
    (Narrowed(license_ids=("x", "z")), "license", ["x"], None),
    (Narrowed(license_ids=("y", "z")), "license", [], None),
    (Narrowed(license_ids=("y", "z")), "policy", ["y", "z"], None),
    (Narrowed(policy_id="y", license_ids=("y", "z")), "policy", [], None),
]


@pytest.mark.parametrize(("narrowed", "kind", "licenses", "group"), TOUCHES)
def test_what_a_change_touches(narrowed: Narrowed, kind: str, licenses: list[str], group: Group | None) -> None:
    marks = Marks(narrowed)
    marks.touch(kind, "x")
    marks.touch(kind, "x")
    assert marks.news.is_set() is bool(licenses or group)
    assert sorted(marks.take(9)) == licenses
    assert marks.take_group() == group
    assert len(marks) == 0


def test_what_was_lost_is_read_anew() -> None:
    marks = Marks(Narrowed())
    marks.touch("license", "lic_1")
    marks.touch("policy", "pol_1")
    marks.lose()
    assert (len(marks), marks.lost, marks.doubted) == (0, True, True)
    marks.begin()
    assert not marks.lost
