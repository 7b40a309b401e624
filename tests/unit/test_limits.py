"""Rates: what a bucket lets through, how processes share it, and how little is kept of those who called."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import DomainError, Reason
from shared.rpc.buckets import Buckets
from shared.rpc.rates import Rates, kind_of
from shared.rules.limits import DEFAULTS, LimitKind, count_of, take
from shared.tenancy import Mode, Principal, PrincipalKind

RATES = st.floats(min_value=1e-4, max_value=1e6)
BURSTS = st.floats(min_value=1.0, max_value=1e6)
PAUSES = st.lists(st.floats(min_value=0.0, max_value=10.0), min_size=1, max_size=60)
DAY_S = 86_400.0


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken_at(pauses: list[float], per_s: float, burst: float, wanted: float) -> list[tuple[float, float]]:
    """The times at which something was taken, and how much, by a caller who asks after each pause."""
    clock, buckets = Clock(), Buckets(lambda: clock.now)
    found: list[tuple[float, float]] = []
    for pause in pauses:
        clock.now += pause
        if buckets.take("k", per_s=per_s, burst=burst, wanted=wanted) == 0:
            found.append((clock.now, wanted))
    return found


def most_in_any_window(found: list[tuple[float, float]], per_s: float) -> float:
    """How much more than the rate alone was taken, in the window where that is most."""
    most = 0.0
    for i, (begin, _) in enumerate(found):
        total = 0.0
        for at, much in found[i:]:
            total += much
            most = max(most, total - per_s * (at - begin))
    return most


@given(PAUSES, RATES, BURSTS)
def test_no_window_gets_more_than_rate_times_time_and_the_burst(
    pauses: list[float], per_s: float, burst: float
) -> None:
    found = taken_at(pauses, per_s, burst, 1.0)
    assert most_in_any_window(found, per_s) <= burst * (1 + 1e-6) + 1e-6
    assert found, "the first is always let in"


@given(PAUSES, RATES, BURSTS, st.integers(min_value=1, max_value=10_000))
def test_nor_do_batches_but_for_one_that_is_larger_than_the_bucket(
    pauses: list[float], per_s: float, burst: float, wanted: int
) -> None:
    found = taken_at(pauses, per_s, burst, wanted)
    assert most_in_any_window(found, per_s) <= max(burst, wanted) * (1 + 1e-6) + 1e-6


@given(PAUSES, st.integers(min_value=1, max_value=1000), st.integers(min_value=1, max_value=50))
@settings(max_examples=50, deadline=None)
def test_shares_of_n_processes_are_at_most_the_rate(pauses: list[float], count: int, live: int) -> None:
    """A share of the burst that is less than one is one: a process that may let nothing through would be none."""
    every = sorted(
        hit for _ in range(live) for hit in taken_at(pauses, count / live, max(1.0, count / live), 1.0)
    )  # each of them asked at the same times, which is the worst
    assert most_in_any_window(every, count) <= max(count, live) * (1 + 1e-6) + 1e-3


@given(RATES, BURSTS, st.floats(min_value=0.0, max_value=10.0), st.integers(min_value=1, max_value=1000))
def test_whoever_waits_as_long_as_told_is_let_in_and_nobody_sooner(
    per_s: float, burst: float, spent_s: float, wanted: int
) -> None:
    now = 50.0
    first = take(now + spent_s, now, per_s=per_s, burst=burst, wanted=wanted)
    if first.wait_s == 0:
        assert first.full_at == pytest.approx(now + spent_s + wanted / per_s)
        return
    assert first.full_at == now + spent_s, "a refusal takes nothing"
    later = now + first.wait_s * (1 + 1e-6) + 1e-9
    assert take(first.full_at, later, per_s=per_s, burst=burst, wanted=wanted).wait_s == 0
    if first.wait_s * per_s > 1e-3 * burst:
        assert take(first.full_at, now + first.wait_s / 2, per_s=per_s, burst=burst, wanted=wanted).wait_s > 0


def test_limits_of_minutes_days_and_addresses_can_be_told() -> None:
    """10 a minute and 20 a day, and 100 a second by address."""
    clock = Clock()
    for count, span_s in ((10, 60.0), (20, DAY_S), (100, 1.0)):
        buckets = Buckets(clock)
        let_in = [buckets.take("192.0.2.7", per_s=count / span_s, burst=count) for _ in range(count + 1)]
        assert let_in[:-1] == [0.0] * count
        assert let_in[-1] == pytest.approx(span_s / count)
        assert buckets.take("192.0.2.8", per_s=count / span_s, burst=count) == 0


def test_a_flood_of_credentials_leaves_a_bounded_number_of_buckets() -> None:
    clock, most = Clock(), 1000
    buckets = Buckets(clock, most)
    for n in range(5 * most):
        buckets.take(n, per_s=1e-6, burst=1)
        assert len(buckets) <= most
    assert buckets.take(5 * most - 1, per_s=1e-6, burst=1) > 0, "those that were used last are remembered"


def test_buckets_that_are_full_again_are_forgotten_as_others_are_used() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    for n in range(1000):
        buckets.take(n, per_s=1.0, burst=1)
    clock.now += 2
    for _ in range(1000):
        buckets.take("busy", per_s=1e9, burst=1e9)
        clock.now += 1
    assert len(buckets) == 1


def principal(kind: PrincipalKind, key_id: str = "key_1", **limits: int) -> Principal:
    return Principal(kind, "acc_1", Mode.TEST, key_id, frozenset(), None, limits)


@pytest.mark.parametrize(
    ("kind", "hot", "limit"),
    [
        (PrincipalKind.OPERATOR, False, None),
        (PrincipalKind.OPERATOR, True, None),
        (PrincipalKind.SECRET_KEY, False, LimitKind.MANAGEMENT_CALLS),
        (PrincipalKind.SECRET_KEY, True, None),
        (PrincipalKind.WORKLOAD, False, LimitKind.MANAGEMENT_CALLS),
        (PrincipalKind.WORKLOAD, True, None),
        (PrincipalKind.PUBLISHABLE_KEY, False, LimitKind.MANAGEMENT_CALLS),
        (PrincipalKind.PUBLISHABLE_KEY, True, None),
        (PrincipalKind.LICENSE_KEY, False, LimitKind.LICENSE_CALLS),
        (PrincipalKind.LICENSE_KEY, True, LimitKind.LICENSE_CALLS),
        (PrincipalKind.CUSTOMER_SESSION, False, LimitKind.SESSION_CALLS),
    ],
)
def test_what_counts_against_what(kind: PrincipalKind, hot: bool, limit: LimitKind | None) -> None:
    assert kind_of(kind, hot=hot) is limit


def test_defaults_stand_where_nothing_is_set_and_0_is_none() -> None:
    for kind in LimitKind:
        assert count_of(kind, {}) == DEFAULTS[kind].count
        assert count_of(kind, {kind.value: 0}) == 0
        assert count_of(kind, {kind.value: 7, "of_a_later_version": 1}) == 7
    assert {kind: DEFAULTS[kind].count for kind in LimitKind} == {
        LimitKind.MANAGEMENT_CALLS: 500, LimitKind.LICENSE_CALLS: 10, LimitKind.SESSION_CALLS: 60,
        LimitKind.ACTIVATIONS_PER_MINUTE: 10, LimitKind.ACTIVATIONS_PER_DAY: 20,
    }  # fmt: skip


def refused(rates: Rates, who: Principal) -> DomainError | None:
    try:
        rates.charge(who, hot=False)
    except DomainError as error:
        return error
    return None


def test_a_refusal_names_the_limit_and_the_time() -> None:
    clock = Clock()
    rates = Rates(lambda: 1, clock)
    who = principal(PrincipalKind.SECRET_KEY, management_calls_per_second=4)
    assert [refused(rates, who) for _ in range(4)] == [None] * 4
    error = refused(rates, who)
    assert error is not None
    assert error.reason is Reason.RATE_LIMITED
    assert error.message == "the limit is 4 management calls a second per credential; there is room again in 250 ms"
    assert error.metadata == {"limit": "management_calls_per_second", "allowed": "4"}
    assert error.retry_after_ms == 250
    assert refused(rates, principal(PrincipalKind.SECRET_KEY, "key_2", management_calls_per_second=4)) is None
    clock.now += 0.2499999
    again = refused(rates, who)
    assert again is not None
    assert again.retry_after_ms == 1, "at least a millisecond"
    clock.now += 0.001
    assert refused(rates, who) is None


def test_the_share_follows_the_number_of_processes_and_the_limit_at_once() -> None:
    clock, live = Clock(), [1]
    rates = Rates(lambda: live[0], clock)

    def let_in(allowed: int) -> int:
        clock.now += 10  # full again
        who = principal(PrincipalKind.WORKLOAD, management_calls_per_second=allowed)
        return sum(refused(rates, who) is None for _ in range(100))

    assert let_in(40) == 40
    live[0] = 4
    assert let_in(40) == 10
    assert let_in(2) == 1, "a share of less than one is one"
    assert let_in(0) == 100


def test_a_license_has_one_rate_whoever_shows_its_key() -> None:
    rates = Rates(lambda: 1, Clock())
    shipped = principal(PrincipalKind.PUBLISHABLE_KEY, license_calls_per_second=4)
    held = replace(principal(PrincipalKind.LICENSE_KEY, license_calls_per_second=4), license_id="lic_1")
    for _ in range(2):
        rates.charge(held, hot=True)
        rates.charge_license(shipped, "lic_1")
    with pytest.raises(DomainError) as caught:
        rates.charge_license(shipped, "lic_1")
    assert caught.value.retry_after_ms == 250
    assert refused(rates, held) is not None
    rates.charge_license(shipped, "lic_2")


def activation(rates: Rates, who: Principal, license_id: str = "lic_1") -> DomainError | None:
    try:
        rates.charge_activation(who, license_id)
    except DomainError as error:
        return error
    return None


def test_activations_of_a_license_are_counted_by_the_minute_and_by_the_day() -> None:
    clock = Clock()
    rates, who = Rates(lambda: 1, clock), principal(PrincipalKind.PUBLISHABLE_KEY)

    def of_minute(wait_ms: int) -> None:
        error = activation(rates, who)
        assert error is not None
        assert error.reason is Reason.RATE_LIMITED
        assert error.metadata == {"limit": "activations_per_minute", "allowed": "10"}
        assert error.retry_after_ms == pytest.approx(wait_ms, abs=1)

    assert [activation(rates, who) for _ in range(10)] == [None] * 10
    of_minute(6000)
    assert activation(rates, who, "lic_2") is None, "each license has its own"
    clock.now += 5.9995
    of_minute(1)
    clock.now += 0.001
    assert activation(rates, who) is None
    of_minute(6000)
    clock.now += 60.0
    # The day's bucket has had 11 taken, and 66 s to fill in: 0.015.
    assert [activation(rates, who) for _ in range(9)] == [None] * 9
    error = activation(rates, who)
    assert error is not None
    assert error.message.startswith("the limit is 20 activations a day for each license, with publishable keys; ")
    assert error.metadata == {"limit": "activations_per_day", "allowed": "20"}
    assert error.retry_after_ms == pytest.approx(4320_000 - 66_000, abs=2)
    clock.now += 4320 - 66.0005 - 0.0005
    again = activation(rates, who)
    assert again is not None
    assert again.retry_after_ms == pytest.approx(1, abs=1)
    clock.now += 0.001
    assert activation(rates, who) is None
    assert activation(rates, who) is not None


def test_what_one_rate_of_activations_refuses_counts_against_neither() -> None:
    clock = Clock()
    rates = Rates(lambda: 1, clock)
    who = principal(PrincipalKind.LICENSE_KEY, activations_per_minute=2, activations_per_day=3)
    assert [activation(rates, who) for _ in range(2)] == [None] * 2
    for _ in range(50):
        error = activation(rates, who)
        assert error is not None
        assert error.metadata["limit"] == "activations_per_minute"
    clock.now += 60
    assert activation(rates, who) is None, "the 50 took nothing of the day's"
    for _ in range(50):
        error = activation(rates, who)
        assert error is not None
        assert error.metadata["limit"] == "activations_per_day"
    lifted = replace(who, limits={"activations_per_minute": 2, "activations_per_day": 0})
    assert activation(rates, lifted) is None, "the 50 took nothing of the minute's"
    assert activation(rates, lifted) is not None


def test_each_rate_of_activations_is_set_alone_and_0_is_none() -> None:
    rates = Rates(lambda: 1, Clock())
    for name, allowed in (("activations_per_minute", 20), ("activations_per_day", 10)):
        who = principal(PrincipalKind.PUBLISHABLE_KEY, "key_1", **{name: 0})
        assert [activation(rates, who, name) for _ in range(allowed)] == [None] * allowed
        error = activation(rates, who, name)
        assert error is not None
        assert error.metadata["limit"] == ({"activations_per_minute", "activations_per_day"} - {name}).pop()
    free = principal(PrincipalKind.PUBLISHABLE_KEY, activations_per_minute=0, activations_per_day=0)
    assert [activation(rates, free, "free") for _ in range(100)] == [None] * 100


@pytest.mark.parametrize(("live", "allowed"), [(1, 10), (2, 5), (4, 2), (100, 1)])
def test_processes_share_activations(live: int, allowed: int) -> None:
    rates, who = Rates(lambda: live, Clock()), principal(PrincipalKind.PUBLISHABLE_KEY)
    assert sum(activation(rates, who) is None for _ in range(30)) == allowed


@pytest.mark.parametrize("live", [1, 4])
def test_strangers_are_counted_by_their_address_whatever_port_they_come_from(live: int) -> None:
    clock = Clock()
    rates, share = Rates(lambda: live, clock), 100 // live
    for peer in ("ipv4:10.0.0.1", "ipv6:[::1]"):
        for n in range(share):
            rates.charge_address(f"{peer}:{5000 + n}")
        with pytest.raises(DomainError) as refused:
            rates.charge_address(f"{peer}:1")
        assert refused.value.reason is Reason.RATE_LIMITED
        assert refused.value.metadata == {"limit": "anonymous_calls_per_second", "allowed": "100"}
        assert refused.value.retry_after_ms == 1000 // share
    clock.now += 1.0
    for n in range(share):
        rates.charge_address(f"ipv4:10.0.0.1:{n}")
    with pytest.raises(DomainError):
        rates.charge_address("ipv4:10.0.0.1:1")
