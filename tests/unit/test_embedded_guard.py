"""A guarded program never outlives its owner, whatever becomes of the owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.embedded import guard
from shared.embedded.errors import EmbeddedError
from shared.embedded.process import GuardedProcess, Program, wait_for
from tests.helpers.embedded import alive, gone

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
DEAF = [
    sys.executable, "-I", "-S", "-c",
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', file=sys.stderr); time.sleep(60)",
]  # fmt: skip


def launch(tmp_path: Path, command: list[str], *, within: float = 5.0) -> GuardedProcess:
    return GuardedProcess.launch(
        Program(command=command, log=tmp_path / "log", environment=dict(os.environ), stop_within_s=within)
    )


def test_stop_ends_the_program(tmp_path: Path) -> None:
    process = launch(tmp_path, SLEEP)
    assert alive(process.pid)
    process.stop()
    assert gone(process.pid)()
    assert process.exit_status() == 128 + signal.SIGTERM


def test_stop_kills_a_program_that_does_not_listen(tmp_path: Path) -> None:
    process = launch(tmp_path, DEAF, within=0.2)
    assert wait_for(lambda: "deaf" in process.log.read_text(), 5)
    process.stop()
    assert gone(process.pid)()
    assert process.exit_status() == 128 + signal.SIGKILL


def test_stop_twice_is_fine(tmp_path: Path) -> None:
    process = launch(tmp_path, SLEEP)
    process.stop()
    process.stop()


def test_the_programs_own_end_is_noticed(tmp_path: Path) -> None:
    process = launch(tmp_path, [sys.executable, "-c", "raise SystemExit(7)"])
    assert wait_for(lambda: process.exit_status() == 7, 5)


def test_a_program_that_cannot_be_executed_says_so(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="no-such-program could not be started"):
        launch(tmp_path, [str(tmp_path / "no-such-program")])


def test_the_owners_end_stops_the_program_and_removes_its_directory(tmp_path: Path) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    command = [sys.executable, "-I", "-S", guard.__file__, "--remove", str(sockets), "--", *SLEEP]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        pid = int(running.stdout.readline())
        running.stdin.close()  # what the kernel does when the owner is killed
        running.wait(5)
    assert gone(pid)()
    assert not sockets.exists()


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="NOT TESTED: only Linux tells a child of its parent's death"
)
def test_the_guards_own_end_stops_the_program(tmp_path: Path) -> None:
    process = launch(tmp_path, SLEEP)
    os.kill(process.guard_pid, signal.SIGKILL)
    assert wait_for(gone(process.pid), 5)
    process.stop()
