"""The bench: what it reads from h2load, what it says of it, and with which status it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import processes
from tests.bench.__main__ import ENTRIES, main
from tests.bench.load import NotRunError, Run, framed, read_log, read_output
from tests.bench.report import Bound, Figure, Goal, NotRun, exit_status, information, record, table, write

FINE = """\
starting benchmark...
spawning thread #0: 4 total client(s). 300 total requests
Application protocol: h2c
progress: 50% done
progress: 100% done

finished in 46.29ms, 6480.60 req/s, 377.44KB/s
requests: 300 total, 300 started, 300 done, 300 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 300 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 17.47KB (17892) total, 1.17KB (1200) headers (space savings 95.06%), 1.46KB (1500) data
                     min         max         mean         sd        +/- sd
time for request:     1.44ms     12.60ms      8.68ms      1.77ms    70.33%
time for connect:      704us       915us       797us        88us    50.00%
time to 1st byte:     2.50ms     11.28ms      7.04ms      3.73ms    50.00%
req/s           :    1630.42     1776.54     1705.34       62.69    50.00%
"""
LONGER = """\
finished in 3.54s, 11283.57 req/s, 2.52MB/s
requests: 40000 total, 40000 started, 40000 done, 40000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 40000 2xx, 0 3xx, 0 4xx, 0 5xx
"""
REFUSED = """\
finished in 2.87ms, 4175.37 req/s, 172.61KB/s
requests: 12 total, 12 started, 12 done, 0 succeeded, 12 failed, 0 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 12 4xx, 0 5xx
"""
NOBODY_LISTENS = """\
starting benchmark...
spawning thread #0: 2 total client(s). 20 total requests

finished in 407us, 0.00 req/s, 0B/s
requests: 20 total, 0 started, 0 done, 0 succeeded, 20 failed, 20 errored, 0 timeout
status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx
"""
LOG = "1795222787346824\t200\t1439\n1795222787346824\t200\t1573\n1795222787346730\t200\t512\n"

AT_LEAST = Goal("speed", Bound.MIN, 3.0, 4.0, "calls/s")
AT_MOST = Goal("delay", Bound.MAX, 1.6, 1.2, "ms")
FIELDS = ["name", "ratio", "must", "aim", "bound", "value", "baseline", "unit", "rounds", "low", "high"]


@pytest.mark.parametrize(("text", "calls", "seconds"), [(FINE, 300, 0.04629), (LONGER, 40000, 3.54)])
def test_the_time_that_h2load_took(text: str, calls: int, seconds: float) -> None:
    assert read_output(text, calls) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "calls", "why"),
    [
        (REFUSED, 12, "12 4xx"),
        (NOBODY_LISTENS, 20, "20 errored"),
        (FINE, 301, "301 calls were sent, but requests: 300 total"),
        (FINE.replace("300 2xx", "299 2xx"), 300, "299 2xx"),
        ("h2load: unrecognized option '--log-file'", 1, "unrecognized option"),
        (FINE.replace("46.29ms", "0us"), 300, "no time"),
    ],
)
def test_calls_that_were_lost(text: str, calls: int, why: str) -> None:
    with pytest.raises(NotRunError, match=why):
        read_output(text, calls)


def test_latencies() -> None:
    assert read_log(LOG, 3) == (512, 1439, 1573)
    run = Run(100, 2.0, tuple(range(1000, 101_000, 1000)))
    assert (run.rate, run.percentile_ms(0.5), run.percentile_ms(0.99), run.percentile_ms(1)) == (50, 51, 100, 100)


@pytest.mark.parametrize("log", [LOG.replace("200\t512", "-1\t512"), LOG.partition("\n")[2], ""])
def test_latencies_of_calls_that_were_lost(log: str) -> None:
    with pytest.raises(NotRunError, match="3 calls were sent"):
        read_log(log, 3)


def test_a_framed_message() -> None:
    assert (framed(b""), framed(b"abc")) == (b"\0\0\0\0\0", b"\0\0\0\0\3abc")


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # In the third round something else ran, which slowed both down.
    line = record(Figure(AT_LEAST, [4000, 4200, 900, 4400, 3600], [1000, 1000, 300, 1000, 1000]))
    assert list(line) == FIELDS
    assert line == {
        "name": "speed", "ratio": 4.0, "must": 3.0, "aim": 4.0, "bound": "min", "value": 4000, "baseline": 1000,
        "unit": "calls/s", "rounds": 5, "low": 3.0, "high": 4.4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("goal", "value", "verdict", "status"),
    [
        (AT_LEAST, 2.99, "MISSED", 1),
        (AT_LEAST, 3.0, "met", 0),
        (AT_LEAST, 3.99, "met", 0),
        (AT_LEAST, 4.0, "aim met", 0),
        (AT_MOST, 1.61, "MISSED", 1),
        (AT_MOST, 1.6, "met", 0),
        (AT_MOST, 1.21, "met", 0),
        (AT_MOST, 1.2, "aim met", 0),
        (information("told", Bound.MIN, "calls/s"), 0.001, "information", 0),
        (information("told", Bound.MAX, "calls/s"), 1000, "information", 0),
    ],
)
def test_bounds(goal: Goal, value: float, verdict: str, status: int) -> None:
    figure = Figure(goal, [value], [1.0])
    assert figure.verdict == verdict
    assert exit_status([figure]) == status
    assert verdict in table([figure])


def test_what_did_not_run_fails_and_is_named(tmp_path: Path) -> None:
    results = [Figure(AT_LEAST, [5.0] * 5, [1.0] * 5), NotRun(AT_MOST, "no Postgres")]
    assert exit_status(results[:1]) == 0
    assert exit_status(results) == 1
    assert "not run: no Postgres" in table(results)
    write(results, tmp_path / "new" / "bench.jsonl")
    fine, missing = [json.loads(line) for line in (tmp_path / "new" / "bench.jsonl").read_text().splitlines()]
    assert list(missing) == FIELDS == list(fine)
    assert (missing["name"], missing["ratio"], missing["rounds"], missing["must"]) == ("delay", None, 0, 1.6)


def test_few_rounds_are_not_to_be_quoted() -> None:
    assert "not to be quoted" in table([Figure(AT_LEAST, [5.0] * 4, [1.0] * 4)])
    assert "not to be quoted" not in table([Figure(AT_LEAST, [5.0] * 5, [1.0] * 5)])


def test_without_h2load_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--out", str(tmp_path / "bench.jsonl")]) == 1
    lines = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    goals = [goal.name for entry in ENTRIES.values() for goal in entry.goals]
    assert [(line["name"], line["ratio"]) for line in lines] == [(name, None) for name in goals]
    assert "nghttp2-client" in capsys.readouterr().out


def test_an_entry_can_be_asked_for_by_any_of_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    main(["--only", "growth_record,empty,growth", "--out", str(tmp_path / "bench.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["growth_hot", "growth_record", "growth_writes", "empty"]


def test_each_figure_has_a_name_of_its_own() -> None:
    goals = [goal.name for entry in ENTRIES.values() for goal in entry.goals]
    assert len(set(goals)) == len(goals)


@pytest.mark.parametrize("arguments", [["--only", "emtpy"], ["--only", "empty,emtpy"]])
def test_an_unknown_entry_is_refused_with_those_that_there_are(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no such entry: emtpy;" in said
    assert all(name in said for name in ENTRIES)


@pytest.mark.parametrize("rounds", ["0", "-1", "some"])
def test_rounds_are_at_least_one(rounds: str) -> None:
    with pytest.raises(SystemExit):
        main(["--rounds", rounds])


@pytest.mark.skipif(not processes.available(), reason="NOT TESTED, costs of processes: this system has no /proc")
def test_what_a_process_costs() -> None:
    before = processes.cpu_s([os.getpid()])
    while processes.cpu_s([os.getpid()]) < before + 0.02:
        sum(range(1000))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert set(processes.family(os.getpid())) >= {os.getpid(), child.pid}
        assert set(processes.family(child.pid)) == {child.pid}
        assert processes.rss_bytes(child.pid) > 0
        child.communicate(b"\n")
    assert child.pid not in processes.family(os.getpid())
    with pytest.raises(OSError, match=str(child.pid)):
        processes.rss_bytes(child.pid)
