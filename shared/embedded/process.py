"""A program that is guarded: it ends when this process does, even by kill -9."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from shared.embedded import guard
from shared.embedded.errors import EmbeddedError
from shared.embedded.user import ServerUser

POLL_S: Final = 0.01
LOG_TAIL: Final = 1500


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and how to end it. `remove` goes away with an owner that died."""

    command: Sequence[str | Path]
    log: Path
    environment: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 30.0
    orphan_within_s: float = 30.0
    user: ServerUser | None = None
    remove: Path | None = None
    cwd: Path | None = None


def log_tail(log: Path) -> str:
    """The end of a log, for a message about a program that failed."""
    try:
        return log.read_text(errors="replace")[-LOG_TAIL:].strip()
    except OSError:
        return ""


def wait_for(condition: Callable[[], bool], within_s: float) -> bool:
    """Polls a condition; false when it does not come true in time."""
    limit = monotonic() + within_s
    while not condition():
        if monotonic() >= limit:
            return False
        sleep(POLL_S)
    return True


class GuardedProcess:
    """One running program and its guard. Made by `launch`; ended by `stop`."""

    def __init__(self, program: Program, guard_process: subprocess.Popen[bytes], pid: int) -> None:
        self._program = program
        self._guard = guard_process
        self.pid = pid
        """The program's own process id, not the guard's."""

    @classmethod
    def launch(cls, program: Program) -> GuardedProcess:
        """Starts the program; raises EmbeddedError when it cannot be executed. The log is begun anew."""
        program.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            program.log.replace(program.log.with_suffix(program.log.suffix + ".1"))
        with program.log.open("ab") as log:
            program.log.chmod(0o600)
            guard_process = subprocess.Popen(  # noqa: S603 - our own interpreter and guard
                [str(part) for part in _guard_command(program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=program.cwd,
                env=dict(program.environment),
                start_new_session=True,  # Ctrl-C at the terminal is for the owner, who stops things in order
            )
        assert guard_process.stdout is not None
        line = guard_process.stdout.readline()
        guard_process.stdout.close()
        if not line:
            guard_process.wait()
            raise EmbeddedError(f"{program.command[0]} could not be started: {log_tail(program.log)}")
        return cls(program, guard_process, int(line))

    @property
    def guard_pid(self) -> int:
        """The guard's process id."""
        return self._guard.pid

    @property
    def log(self) -> Path:
        """Where the program's output goes."""
        return self._program.log

    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._guard.poll()

    def ask_to_stop(self) -> None:
        """Passes the program its stop signal, and returns at once."""
        if self._guard.poll() is None:
            self._guard.terminate()

    def wait(self) -> None:
        """Waits for the end of a program that was asked to stop: its bound at most, as the guard kills it then."""
        try:
            self._guard.wait(self._program.stop_within_s + 5)
        finally:
            if self._guard.stdin is not None:
                self._guard.stdin.close()

    def stop(self) -> None:
        """Stops the program within its bound and waits for its end. Fine when it has ended already."""
        self.ask_to_stop()
        self.wait()


def _guard_command(program: Program) -> list[str | Path]:
    command: list[str | Path] = [sys.executable, "-I", "-S", guard.__file__, "--signal", program.stop_signal.name]
    command += ["--within", str(program.stop_within_s), "--orphan-within", str(program.orphan_within_s)]
    if program.user is not None:
        command += ["--uid", str(program.user.uid), "--gid", str(program.user.gid)]
    if program.remove is not None:
        command += ["--remove", program.remove]
    return [*command, "--", *program.command]
