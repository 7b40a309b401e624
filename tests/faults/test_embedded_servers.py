"""The embedded servers keep what they must, leave nothing behind, and are reached by nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.embedded.errors import EmbeddedError
from shared.embedded.places import remove_state
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import wait_for
from shared.embedded.user import server_user
from shared.embedded.valkey import SOCKET_NAME, EmbeddedValkey
from tests.helpers.embedded import Owner, alive, ask, commands_with, gone, kill, state_directory

MAKE = ("CREATE TABLE kept (value int)", "INSERT INTO kept VALUES (42)", "SELECT value FROM kept")
LOOK = "SELECT value FROM kept"

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="NOT TESTED: this system has no /proc")


@pytest.fixture
def state() -> Iterator[Path]:
    with state_directory() as path:
        yield path


def careless(state: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(state, durable=False)


def listening_inodes() -> set[str]:
    """The sockets of this machine that listen on TCP."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {words[9] for words in lines if words[3] == "0A"}


def sockets_of(pid: int) -> set[str]:
    found: set[str] = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    return found


def test_data_survive_a_restart(state: Path) -> None:
    with EmbeddedPostgres(state) as postgres:
        assert ask(postgres.dsn("postgres"), *MAKE) == 42
        assert ask(postgres.admin_dsn(), "SHOW fsync") == "on"
        sockets = postgres.socket_dir
    assert not sockets.exists()
    with EmbeddedPostgres(state) as postgres:
        assert ask(postgres.dsn("postgres"), LOOK) == 42


def test_a_crashed_server_comes_back_at_the_same_address(state: Path) -> None:
    with careless(state) as postgres:
        ask(postgres.admin_dsn(), *MAKE)
        dsn = postgres.admin_dsn()
        kill(postgres)
        postgres.restart()
        assert postgres.admin_dsn() == dsn
        assert ask(dsn, LOOK) == 42


def test_two_stacks_at_once(state: Path) -> None:
    with state_directory() as other, careless(state) as one, careless(other) as two, EmbeddedValkey(other) as valkey:
        ask(one.admin_dsn(), *MAKE)
        assert ask(two.admin_dsn(), "SELECT to_regclass('kept')::text") is None
        assert len({one.socket_dir, two.socket_dir, valkey.socket_dir}) == 3


def test_one_cluster_has_one_owner(state: Path) -> None:
    with careless(state) as first:
        with pytest.raises(EmbeddedError, match="another process has the Postgres"):
            careless(state).start()
        assert ask(first.admin_dsn(), "SELECT 1") == 1


def test_a_killed_owner_leaves_nothing_running(state: Path) -> None:
    owner = Owner(state)
    owner.end(signal.SIGKILL)
    assert wait_for(gone(*owner.server_pids), 5)
    assert wait_for(lambda: not any(path.exists() for path in owner.socket_dirs), 5)
    for path in map(str, owner.socket_dirs):
        assert wait_for(lambda path=path: not commands_with(path), 5)
    with careless(state) as postgres:
        assert ask(postgres.admin_dsn(), "SELECT 1") == 1


@needs_proc
def test_a_leftover_server_is_stopped_first(state: Path) -> None:
    with careless(state) as postgres:
        ask(postgres.admin_dsn(), *MAKE)
        command = Path(f"/proc/{postgres.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    user = server_user(state / "postgres")
    data = (state / "postgres").resolve() / "data"
    command[command.index("-k") + 1] = str(data)
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        user=user.uid if user else None, group=user.gid if user else None,
    ) as leftover:  # fmt: skip
        assert wait_for(lambda: "ready" in read(data / "postmaster.pid"), 10)
        with careless(state) as postgres:
            assert leftover.wait(5) == 0
            assert ask(postgres.admin_dsn(), LOOK) == 42


def test_a_pid_file_that_names_another_program_harms_neither(state: Path) -> None:
    with careless(state):
        pass
    user = server_user(state / "postgres")
    with subprocess.Popen(["sleep", "60"], user=user.uid if user else None) as bystander:
        data = (state / "postgres").resolve() / "data"
        (data / "postmaster.pid").write_text(f"{bystander.pid}\n{data}\n1\n5432\n\n\n\n")
        with careless(state) as postgres:
            assert ask(postgres.admin_dsn(), "SELECT 1") == 1
            assert alive(bystander.pid)
        bystander.kill()


def test_a_first_start_that_was_killed_harms_nothing(state: Path) -> None:
    half = state / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    user = server_user(state / "postgres")
    if user is not None:
        for path in (state / "postgres", half):
            user.take(path)
        state.chmod(0o711)
    with careless(state) as postgres:
        assert ask(postgres.admin_dsn(), "SELECT 1") == 1


def test_paths_longer_than_a_socket_may_have(state: Path) -> None:
    deep = state / ("d" * 120) / "state"
    deep.parent.mkdir(parents=True)
    try:
        with careless(deep) as postgres, EmbeddedValkey(deep) as valkey:
            assert ask(postgres.admin_dsn(), "SELECT 1") == 1
            assert valkey.pid
    finally:
        remove_state(deep)


def test_a_private_directory_above_keeps_its_mode_and_the_data(state: Path) -> None:
    above = state / "above"
    above.mkdir(parents=True)
    above.chmod(0o700)
    try:
        with careless(above / "state") as postgres:
            ask(postgres.admin_dsn(), *MAKE)
        with careless(above / "state") as postgres:
            assert ask(postgres.admin_dsn(), LOOK) == 42
        assert stat.S_IMODE(above.stat().st_mode) == 0o700
    finally:
        remove_state(above / "state")


@needs_proc
def test_nothing_listens_on_tcp_and_sockets_are_private(state: Path) -> None:
    with careless(state) as postgres, EmbeddedValkey(state) as valkey:
        assert ask(postgres.admin_dsn(), "SHOW listen_addresses") == ""
        assert ask(postgres.admin_dsn(), "SHOW server_encoding") == "UTF8"
        for server in (postgres, valkey):
            assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
            assert not sockets_of(server.pid) & listening_inodes()


def test_valkey_answers_and_comes_back_empty(state: Path) -> None:
    with EmbeddedValkey(state) as valkey:
        assert valkey_says(valkey, b"SET key value") == b"+OK"
        assert valkey_says(valkey, b"EXISTS key") == b":1"
        dsn = valkey.dsn()
        kill(valkey)
        valkey.restart()
        assert valkey.dsn() == dsn
        assert valkey_says(valkey, b"EXISTS key") == b":0"


def valkey_says(valkey: EmbeddedValkey, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(valkey.socket_dir / SOCKET_NAME))
        connection.sendall(command + b"\r\n")
        return connection.recv(100).strip()


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
