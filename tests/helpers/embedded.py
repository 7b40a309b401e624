"""What tests of, and on, the embedded servers need: throw-away state, owners that can be killed, and a look at processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from shared.embedded.places import temporary_state
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import wait_for
from shared.embedded.valkey import EmbeddedValkey

Server = EmbeddedPostgres | EmbeddedValkey

TREE: Final = Path(__file__).resolve().parent.parent.parent
OWNER: Final = """
import sys
from pathlib import Path
from shared.embedded.places import temporary_state
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.valkey import EmbeddedValkey
state = Path(sys.argv[1])
with EmbeddedPostgres(state, durable=False) as postgres, EmbeddedValkey(state) as valkey:
    print(postgres.pid, postgres.socket_dir, valkey.pid, valkey.socket_dir, flush=True)
    sys.stdin.read()
"""


state_directory = temporary_state
"""Unlike pytest's `tmp_path`, a state directory that the user can reach whom root runs the servers as."""


def ask(dsn: str, *statements: str) -> Any:
    """Runs statements one by one; the first value of the last."""

    async def run() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


def kill(server: Server) -> None:
    """Kills a server as a crash would, and waits until it is noticed; `server.restart()` brings it back."""
    os.kill(server.pid, signal.SIGKILL)
    process = server.process
    assert wait_for(lambda: process.exit_status() is not None, 5)


@contextmanager
def frozen(server: Server) -> Generator[None]:
    """A server that neither answers nor closes anything while the block runs."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = (line.split() for line in shown.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]


@contextmanager
def paused(server: EmbeddedPostgres) -> Generator[None]:
    """The whole server: the process that takes connections, and those that serve them."""
    os.kill(server.pid, signal.SIGSTOP)  # first, so that no child is born after we have looked
    stopped = [server.pid, *children(server.pid)]
    _signal_all(stopped[1:], signal.SIGSTOP)
    try:
        yield
    finally:
        _signal_all(stopped, signal.SIGCONT)


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """Autovacuum's workers come and go by themselves."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def gone(*pids: int) -> Callable[[], bool]:
    """A condition: none of these processes is there any more."""

    def check() -> bool:
        return not any(alive(pid) for pid in pids)

    return check


def alive(pid: int) -> bool:
    """Whether a process is there; one that has ended and waits to be reaped is not."""
    stat = Path("/proc") / str(pid) / "stat"
    if Path("/proc/self").exists():
        with contextlib.suppress(OSError):
            return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True, check=False).returncode == 0


def commands_with(text: str) -> list[str]:
    """The command lines of processes that have `text` in them."""
    if not Path("/proc/self").exists():
        shown = subprocess.run(["ps", "-Awwo", "command="], capture_output=True, text=True, check=False).stdout
        return [line for line in shown.splitlines() if text in line]
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [line] if text in line else []
    return found


class Owner:
    """Another process that has both servers of a state directory running."""

    def __init__(self, state: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TREE,
        )
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert len(words) == 4, "the owner's servers did not start"
        self.server_pids = (int(words[0]), int(words[2]))
        self.socket_dirs = (Path(words[1]), Path(words[3]))

    def end(self, number: signal.Signals) -> None:
        """Sends it a signal and waits for its end."""
        self.process.send_signal(number)
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
