"""The state directory: one run at a time, and secrets for its owner only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shared.embedded.errors import EmbeddedError
from shared.embedded.places import LONGEST_SOCKET_NAME, SOCKET_PATH_LIMIT, private_directory, run_directory
from shared.embedded.ports import address, busy, free_listen, loopback
from shared.embedded.progress import silent, step
from shared.embedded.state import AlreadyRunningError, RunRecord, StateDirectory

RECORD = RunRecord(7, "127.0.0.1:7420", "/somewhere/api-key", ("lictor call one", "lictor call two"), "")


def test_a_second_run_is_told_of_the_first(tmp_path: Path) -> None:
    first, second = StateDirectory(tmp_path / "state"), StateDirectory(tmp_path / "state")
    first.lock()
    with pytest.raises(AlreadyRunningError):
        second.lock()
    assert second.read_run() is None
    first.write_run(RECORD)
    assert second.read_run() == RECORD


def test_a_directory_is_free_again_and_forgets_the_run(tmp_path: Path) -> None:
    first, second = StateDirectory(tmp_path / "state"), StateDirectory(tmp_path / "state")
    first.lock()
    first.write_run(RECORD)
    first.unlock()
    second.lock()
    assert second.read_run() is None
    second.unlock()


def test_what_a_killed_run_said_is_forgotten_by_the_next(tmp_path: Path) -> None:
    StateDirectory(tmp_path / "state").write_run(RECORD)
    following = StateDirectory(tmp_path / "state")
    following.lock()
    assert following.read_run() is None
    following.unlock()


def test_files_are_for_the_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state = StateDirectory(tmp_path / "state")
        written = state.write("api-key", "secret\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.path.stat().st_mode) & 0o066 == 0
    assert state.read("api-key") == "secret\n"
    assert state.read("nothing") is None


def test_directories_above_keep_their_modes(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o700)
    private_directory(above / "state")
    private_directory(above / "state")
    assert stat.S_IMODE(above.stat().st_mode) == 0o700


def test_a_run_directory_is_private_and_its_path_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    made = run_directory(None)
    try:
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert len(str(made.parent)) + LONGEST_SOCKET_NAME <= SOCKET_PATH_LIMIT
    finally:
        made.rmdir()


@pytest.mark.parametrize(("bind", "host"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("[::1]", "::1")])
def test_loopback_hosts(bind: str, host: str) -> None:
    assert loopback(bind) == host


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "example.test", ""])
def test_other_hosts_are_refused(bind: str) -> None:
    with pytest.raises(EmbeddedError, match="not a loopback address"):
        loopback(bind)


def test_free_ports_differ_and_are_free() -> None:
    listen = free_listen("127.0.0.1")
    ports = {listen.api_port, listen.ops_port, listen.ops_grpc_port}
    assert len(ports) == 3
    assert busy("127.0.0.1", sorted(ports)) == []
    assert address("::1", 7) == "[::1]:7"


def test_a_short_step_says_nothing() -> None:
    said: list[str] = []
    with step(said.append, "quick"):
        silent("nothing")
    assert said == []


def test_a_long_step_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.embedded.progress.QUIET_S", 0.01)
    said: list[str] = []
    with step(said.append, "slow"):
        while not said:
            pass
    assert said[0] == "  slow (0 s)"
