"""`lictor up`: one command, state that survives, Ctrl-C that stops everything, and a killed run that blocks nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lictor import Lictor

from shared.embedded.places import temporary_state
from shared.embedded.ports import free_listen
from shared.embedded.process import wait_for
from tests.helpers.embedded import commands_with

UP_WITHIN_S = 30.0
GONE_WITHIN_S = 10.0


class Up:
    """A running `lictor up` and what it printed."""

    def __init__(self, state: Path, port: int) -> None:
        self.output = state.parent / "printed"
        command = [sys.executable, "-m", "services.cli", "up", "--state-dir", str(state), "--port", str(port)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

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
def _up(state: Path, port: int) -> Generator[Up]:
    run = Up(state, port)
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
