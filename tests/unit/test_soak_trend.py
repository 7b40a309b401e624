"""The soak: the line through what it saw of a process's memory, and how it spreads its load."""

from __future__ import annotations

import pytest

from tests.bench.soak import main
from tests.bench.soak_load import PER_SECOND, Kind, connections
from tests.bench.trend import KIB, Memory, trend

ENVOY_RESETS_PER_S = 33
"""On one connection, by docs/transports.md."""


def look(at_s: float, rss_bytes: float, broken: int) -> Memory:
    return Memory(at_s, {7: round(rss_bytes), 8: 5 * KIB}, broken)


def test_growth_by_time_and_by_broken_stream() -> None:
    looks = [look(t, 10_000 * KIB + (t - 10) * 300 * 10 + (KIB if t % 2 else -KIB), 10 * t) for t in range(10, 130)]
    found = trend([look(0, 8000 * KIB, 0), *looks], 7, 10)
    assert found.start_kib == 8000
    assert found.settled_kib == pytest.approx(10_000, abs=1)
    assert found.bytes_per_broken == pytest.approx(300, rel=0.01)
    assert found.kib_per_min == pytest.approx(300 * 10 * 60 / KIB, rel=0.01)


def test_what_comes_before_the_warm_up_ends_does_not_count() -> None:
    found = trend([look(t, KIB * min(t, 5), t) for t in range(20)], 7, 5)
    assert (found.start_kib, found.settled_kib, found.end_kib) == (0, 5, 5)
    assert found.kib_per_min == 0


def test_without_broken_streams_there_is_no_share_for_them() -> None:
    assert trend([look(t, KIB * t, 3) for t in range(5)], 7, 0).bytes_per_broken is None


@pytest.mark.parametrize("after_s", [4, 5])
def test_one_look_is_no_trend(after_s: float) -> None:
    with pytest.raises(ValueError, match="soak for longer"):
        trend([look(t, KIB, t) for t in range(5)], 7, after_s)


@pytest.mark.parametrize("scale", [0.1, 1, 10])
@pytest.mark.parametrize("kinds", [list(Kind), [Kind.BROKEN], [Kind.OK]])
def test_resets_stay_below_what_envoy_takes_for_an_attack(kinds: list[Kind], scale: float) -> None:
    resets = sum(PER_SECOND[kind] for kind in kinds if kind in (Kind.SHORT, Kind.BROKEN, Kind.CUT)) * scale
    assert resets / connections(kinds, scale) < ENVOY_RESETS_PER_S / 2


@pytest.mark.parametrize("arguments", [["--kinds", "ok,brocken"], ["--minutes", "0"], ["--scale", "-1"]])
def test_arguments_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "brocken" in capsys.readouterr().err or arguments[0] != "--kinds"
