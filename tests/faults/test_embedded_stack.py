"""A stack and its serving processes: started whole, stopped in order, and never twice in one directory."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.up import known_api_key, known_endpoint, up
from shared.embedded.errors import EmbeddedError
from shared.embedded.ports import Listen, free_listen, free_listens
from shared.embedded.process import wait_for
from shared.embedded.serving import children
from shared.embedded.stack import stack
from shared.embedded.state import RunRecord, StateDirectory
from tests.helpers.embedded import TREE, alive, ask, gone, state_directory

SERVING = (
    sys.executable, "-c",
    """
import http.server, os, signal, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["LICTOR_TARGET"].encode())
host, _, port = os.environ["LICTOR_OPS_ADDR"].rpartition(":")
server = http.server.HTTPServer((host, int(port)), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
print("drained", flush=True)
""",
)  # fmt: skip
OWNER = """
import sys, time
from pathlib import Path
from shared.embedded.ports import free_listen
from shared.embedded.serving import children
from shared.embedded.stack import stack
with stack(Path(sys.argv[1]), durable=False) as servers:
    with children(servers, {"all": free_listen("127.0.0.1")}, command=tuple(sys.argv[2:])) as started:
        print(servers.postgres.pid, servers.valkey.pid, started["all"].process.pid, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("LICTOR_POSTGRES_DSN", "LICTOR_REDIS_URL", "LICTOR_ROOT_SECRET_FILE", "LICTOR_KEK_FILE"):
        monkeypatch.delenv(name, raising=False)
    with state_directory() as path:
        yield path


def test_each_target_is_served_with_its_own_settings_and_drained(state: Path) -> None:
    listens: dict[str, Listen] = dict(zip(("license", "machine"), free_listens("127.0.0.1", 2), strict=True))
    with stack(state, durable=False) as servers:
        with children(servers, listens, command=SERVING) as started:
            pids = [child.process.pid for child in started.values()]
            assert all(alive(pid) for pid in pids)
            assert started["machine"].listen == listens["machine"]
        assert gone(*pids)()
        assert "drained" in (state / "logs" / "serve-machine.log").read_text()
        assert servers.postgres is not None
        assert ask(servers.environment["LICTOR_POSTGRES_DSN"] + "&user=postgres", "SELECT 1") == 1


def test_the_root_secret_is_made_once_and_its_loss_is_named(state: Path) -> None:
    secret = state / "root-secret"
    with stack(state, durable=False):
        first = secret.read_text()
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        version, value = first.split()
        assert (version, len(value)) == ("1", 64)
    with stack(state, durable=False):
        assert secret.read_text() == first
    secret.unlink()
    with pytest.raises(EmbeddedError, match="root-secret is gone"), stack(state, durable=False):
        pass


def test_the_kek_is_made_once_and_again_where_it_is_gone(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kek = state / "kek"
    with stack(state, durable=False) as servers:
        first = kek.read_text()
        assert (stat.S_IMODE(kek.stat().st_mode), servers.environment["LICTOR_KEK_FILE"]) == (0o600, str(kek))
        assert first != (state / "root-secret").read_text()
    with stack(state, durable=False):
        assert kek.read_text() == first
    kek.unlink()
    with stack(state, durable=False):
        assert kek.read_text() != first
    kek.unlink()
    monkeypatch.setenv("LICTOR_KEK_FILE", "elsewhere")
    with stack(state, durable=False) as servers:
        assert (kek.exists(), servers.environment["LICTOR_KEK_FILE"]) == (False, "elsewhere")


def test_facts_are_kept_in_the_private_valkey_unless_told_otherwise(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stack(state, durable=False) as servers:
        assert servers.valkey is not None
        assert servers.environment["LICTOR_REDIS_URL"] == servers.valkey.dsn()
    for url in ("redis://127.0.0.1:6379", ""):
        monkeypatch.setenv("LICTOR_REDIS_URL", url)
        with stack(state, durable=False) as servers:
            assert (servers.valkey, servers.environment["LICTOR_REDIS_URL"]) == (None, url)


def test_a_serving_process_that_fails_is_shown_with_its_last_words(state: Path) -> None:
    failing = (sys.executable, "-c", "raise SystemExit('no such setting')")
    with (
        stack(state, durable=False) as servers,
        pytest.raises(EmbeddedError, match="no such setting"),
        children(servers, {"all": free_listen("127.0.0.1")}, command=failing),
    ):
        pass


def test_a_killed_run_blocks_nothing(state: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state), *SERVING],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TREE,
    )  # fmt: skip
    assert owner.stdout is not None
    assert owner.stdin is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 3
    owner.send_signal(signal.SIGKILL)
    owner.wait(5)
    owner.stdin.close()
    owner.stdout.close()
    assert wait_for(gone(*pids), 5)
    with stack(state, durable=False) as servers:
        assert servers.postgres is not None


def test_a_second_run_shows_the_first(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = StateDirectory(state)
    first.lock()
    key = first.write("api-key", "the-test-key\n")
    first.write_run(RunRecord(7, "127.0.0.1:7420", str(key), ("lictor call one",), "http://127.0.0.1:7423"))
    assert up(state, None, "127.0.0.1") == 0
    shown = capsys.readouterr().out
    assert "already running" in shown
    for part in ("127.0.0.1:7420", "http://127.0.0.1:7423", "the-test-key", "lictor call one"):
        assert part in shown
    assert (known_endpoint(state), known_api_key(state)) == ("127.0.0.1:7420", "the-test-key")
    first.unlock()
    assert known_api_key(state) == "the-test-key"


def test_asking_about_a_state_directory_does_not_make_it(state: Path) -> None:
    assert (known_endpoint(state), known_api_key(state)) == ("127.0.0.1:7420", "")
    assert not state.exists()


def test_an_address_beyond_this_machine_is_refused(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert up(state, None, "0.0.0.0") == 1
    said = capsys.readouterr().err
    for words in ("not a loopback address", "lictor serve", "LICTOR_TLS_CERT_FILE", "LICTOR_TLS_KEY_FILE"):
        assert words in said
    assert not state.exists()


def test_tls_is_refused(state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICTOR_TLS_CERT_FILE", "server.pem")
    assert up(state, None, "127.0.0.1") == 1
    said = capsys.readouterr().err
    assert "LICTOR_TLS_CERT_FILE: a private stack speaks plain text; TLS is for `lictor serve`" in said
    assert not state.exists()
