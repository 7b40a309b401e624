"""The breaker leaves alone who fails several times in a row, and tries again with one probe after a pause."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.freshness.breaker import Breaker, State
from tests.helpers.redis_tier import TurnedClock


class Scene:
    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.breaker = Breaker(self.clock, failures=3, pause_s=2.0)

    def closed(self) -> None:
        """The first state."""

    def closed_after_two(self) -> None:
        self.breaker.failed()
        self.breaker.failed()

    def open(self) -> None:
        self.closed_after_two()
        assert self.breaker.failed()

    def open_long(self) -> None:
        self.open()
        self.clock.at_s += 2.0

    def probing(self) -> None:
        self.open_long()
        assert self.breaker.take_probe()

    def probed(self) -> None:
        self.probing()
        self.breaker.succeeded()


CLOSED, OPEN, PROBING = State.CLOSED, State.OPEN, State.PROBING
EXPECTED = {
    # state: (after a failure, after a success, whether it gives a probe)
    "closed": (CLOSED, CLOSED, False),
    "closed_after_two": (OPEN, CLOSED, False),
    "open": (OPEN, CLOSED, False),
    "open_long": (OPEN, CLOSED, True),
    "probing": (OPEN, CLOSED, False),
    "probed": (OPEN, CLOSED, False),
}


@pytest.mark.parametrize("state", EXPECTED)
def test_every_state_and_what_happens_in_it(state: str) -> None:
    failed, succeeded, probe = EXPECTED[state]
    arrange: Callable[[Scene], None] = getattr(Scene, state)
    for act, after in ((Breaker.failed, failed), (Breaker.succeeded, succeeded)):
        scene = Scene()
        arrange(scene)
        act(scene.breaker)
        assert scene.breaker.state is after
    scene = Scene()
    arrange(scene)
    before = scene.breaker.state
    assert scene.breaker.take_probe() is probe
    assert scene.breaker.state is (PROBING if probe else before)


def test_there_is_one_probe_and_a_failed_one_begins_the_pause_anew() -> None:
    scene = Scene()
    scene.probing()
    scene.clock.at_s += 100.0
    assert not scene.breaker.take_probe()
    assert scene.breaker.failed()
    assert not scene.breaker.take_probe()
    scene.clock.at_s += 2.0
    assert scene.breaker.take_probe()


def test_a_success_forgets_failures() -> None:
    scene = Scene()
    for _ in range(5):
        scene.closed_after_two()
        scene.breaker.succeeded()
    assert scene.breaker.state is CLOSED
