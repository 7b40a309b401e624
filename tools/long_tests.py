"""Runs the long tests: those marked `together` some at a time, and then the others one by one.

    python tools/long_tests.py [WORKERS [pytest's arguments]]

A long test that is not marked measures something, or takes the whole machine, and nothing may run beside it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest


def runs(workers: str) -> tuple[Sequence[str], ...]:
    """What pytest is told, run by run."""
    beside = ("-n", workers, "--dist", "load")
    return ("-m", "long and together", *beside), ("-m", "long and not together")


def main(arguments: Sequence[str]) -> int:
    """Every run is made, whatever became of the one before, unless somebody stopped it; the first bad status."""
    workers, more = (arguments[0] if arguments else "3"), arguments[1:]
    bad, ran = 0, False
    for told in runs(workers):
        status = subprocess.run(
            [sys.executable, "-m", "pytest", "--durations=15", *told, *more], check=False
        ).returncode
        if status == pytest.ExitCode.NO_TESTS_COLLECTED:
            continue
        ran, bad = True, bad or status
        if status == pytest.ExitCode.INTERRUPTED:
            break
    if not ran:
        print("test-long: no long test is named so, and nothing ran")
    return bad


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(int(pytest.ExitCode.INTERRUPTED))
