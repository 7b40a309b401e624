"""`make bench` and `make soak` run from end to end, on far fewer calls than a figure needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import processes
from tests.bench.load import PROGRAM
from tests.bench.soak_load import Kind
from tests.helpers.embedded import TREE
from tests.helpers.serving import needs_envoy

needs_proc = pytest.mark.skipif(not processes.available(), reason="NOT TESTED, the bench: this system has no /proc")
needs_h2load = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason="NOT TESTED, the bench: h2load is not installed (nghttp2-client)"
)
EMPTY = {
    "empty", "empty_envoy_bare", "empty_grpcio_chain", "empty_cpu", "empty_envoy_bare_cpu", "empty_grpcio_chain_cpu",
    "empty_p50",
}  # fmt: skip


def run(out: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """A module of the bench as `make` runs it, and the lines that it wrote."""
    paths = f"{TREE}:{TREE / 'clients' / 'python'}"
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--out", str(out)],
        capture_output=True, text=True, check=False, cwd=TREE, timeout=110, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    return done, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.timeout(120)
@needs_h2load
@needs_proc
@needs_envoy
def test_the_empty_call_is_measured(tmp_path: Path) -> None:
    done, lines = run(tmp_path / "bench.jsonl", "tests.bench", "--only", "empty", "--rounds", "1", "--calls", "200")
    found = {line["name"]: line for line in lines}
    assert set(found) == EMPTY, done.stdout + done.stderr
    assert all(line["rounds"] == 1 for line in lines)
    assert all(line["ratio"] > 0 for line in lines)
    assert done.returncode == (found["empty"]["ratio"] < found["empty"]["must"])


@pytest.mark.long
@pytest.mark.timeout(120)
@needs_proc
@needs_envoy
def test_a_short_soak_goes_well(tmp_path: Path) -> None:
    done, lines = run(tmp_path / "soak.jsonl", "tests.bench.soak", "--minutes", "0.2")
    result = lines[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(result["made"]) == set(Kind)
    assert (result["failed"], result["faults"], result["none_of"]) == ({}, 0, [])
    assert len(lines) - 1 >= 10
    assert all(look["rss_kib"] for look in lines[:-1])
    assert {one["name"] for one in result["processes"]} >= {"envoy"}
