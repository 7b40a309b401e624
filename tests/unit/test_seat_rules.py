"""How many seats there are, with what may be exceeded."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.seats import OverageStrategy, cap, effective_limit

FACTORS = {
    OverageStrategy.NO_OVERAGE: Fraction(1),
    OverageStrategy.ALLOW_1_25X: Fraction(5, 4),
    OverageStrategy.ALLOW_1_5X: Fraction(3, 2),
    OverageStrategy.ALLOW_2X: Fraction(2),
}


@given(st.integers(1, 2**63 - 1), st.sampled_from(sorted(FACTORS)))
def test_a_cap_is_the_limit_times_the_factor_rounded_down(limit: int, overage: OverageStrategy) -> None:
    assert cap(limit, overage) == floor(limit * FACTORS[overage])


@pytest.mark.parametrize("overage", OverageStrategy)
def test_without_a_limit_there_is_no_cap(overage: OverageStrategy) -> None:
    assert cap(None, overage) is None
    assert (cap(1, overage) is None) == (overage is OverageStrategy.ALWAYS_ALLOW)


@pytest.mark.parametrize(
    ("policy_limit", "override", "overridable", "expected"),
    [
        (5, None, ("MAX_MACHINES",), 5),
        (5, 7, ("MAX_MACHINES",), 7),
        (5, 3, ("MAX_USERS", "MAX_MACHINES"), 3),
        (5, 7, ("MAX_USERS",), 5),
        (5, 7, (), 5),
        (None, 7, ("MAX_MACHINES",), 7),
        (None, None, ("MAX_MACHINES",), None),
    ],
)
def test_a_license_has_its_own_limit_only_where_its_policy_lets_it(
    policy_limit: int | None, override: int | None, overridable: tuple[str, ...], expected: int | None
) -> None:
    assert effective_limit(policy_limit, override, overridable, "MAX_MACHINES") == expected
