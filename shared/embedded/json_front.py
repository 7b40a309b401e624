"""JSON over HTTP for a private stack whose server cannot take it: an Envoy in front, gone with its owner."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.embedded.errors import EmbeddedError
from shared.embedded.places import run_directory
from shared.embedded.ports import Listen
from shared.embedded.process import GuardedProcess, Program, log_tail, wait_for
from shared.embedded.state import StateDirectory
from shared.rpc.envoy.bootstrap import ADMIN_SOCKET
from shared.rpc.envoy.front import write_front
from shared.rpc.envoy.program import command

READY_WITHIN_S: Final = 20.0
STOP_WITHIN_S: Final = 5.0


@contextmanager
def json_front(state: StateDirectory, listen: Listen, services: Sequence[str]) -> Generator[GuardedProcess]:
    """Takes JSON at `listen.json` for the server at `listen.api`, while the block runs. EmbeddedError if it cannot."""
    folder = run_directory(None)
    try:
        write_front(folder, listen.json, listen.api, services)
        process = GuardedProcess.launch(
            Program(
                command=command(folder),
                log=state.path / "logs" / "json.log",
                environment={name: value for name, value in os.environ.items() if not name.startswith("LICTOR_")},
                stop_within_s=STOP_WITHIN_S,
                orphan_within_s=STOP_WITHIN_S,
                remove=folder,
            )
        )
        try:
            _await_ready(process, folder / ADMIN_SOCKET)
            yield process
        finally:
            process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await_ready(process: GuardedProcess, admin: Path) -> None:
    def settled() -> bool:
        return process.exit_status() is not None or _listens(admin)

    if not wait_for(settled, READY_WITHIN_S) or process.exit_status() is not None:
        raise EmbeddedError(f"JSON over HTTP did not start, see {process.log}: {log_tail(process.log)}")


def _listens(admin: Path) -> bool:
    """Whether Envoy says that it takes requests. Its port would not tell: somebody else might answer there."""
    connection = http.client.HTTPConnection("envoy")
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(1.0)
        connection.sock.connect(str(admin))
        connection.request("GET", "/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
