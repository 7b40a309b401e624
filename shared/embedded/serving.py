"""The serving processes on a stack: started together, stopped in order, gone with their owner."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from shared.embedded.errors import EmbeddedError
from shared.embedded.ports import Listen
from shared.embedded.process import GuardedProcess, Program, log_tail, wait_for
from shared.embedded.progress import Say, silent, step
from shared.embedded.stack import Stack

READY_WITHIN_S: Final = 60.0
DRAIN_WITHIN_S: Final = 40.0
ORPHAN_WITHIN_S: Final = 3.0
NOT_THEIRS: Final = ("LICTOR_POSTGRES_ADMIN_DSN", "LICTOR_API_KEY", "LICTOR_JSON_ADDR")
"""What a serving process has no business to know, or is told by its `Listen`."""
SERVE: Final = (sys.executable, "-m", "services.cli", "serve")


@dataclass(frozen=True, slots=True)
class Child:
    """One running `lictor serve`."""

    target: str
    listen: Listen
    process: GuardedProcess


@contextmanager
def children(
    stack: Stack, listens: Mapping[str, Listen], *, command: tuple[str, ...] = SERVE, say: Say = silent
) -> Generator[Mapping[str, Child]]:
    """Runs one serving process per target until the block ends; all are ready when it begins, and know of each other."""
    beside = {"LICTOR_LICENSE_ADDR": listens["license"].api} if "license" in listens else {}
    started: dict[str, Child] = {}
    try:
        for target, listen in listens.items():
            started[target] = _serve(stack, target, listen, command, beside)
        for child in started.values():
            with step(say, f"starting the server ({child.target})"):
                _await_ready(child)
        yield started
    finally:
        with step(say, "waiting for calls to end"):
            _stop(list(started.values()))


def _serve(stack: Stack, target: str, listen: Listen, command: tuple[str, ...], beside: Mapping[str, str]) -> Child:
    settings = {name: value for name, value in stack.environment.items() if name not in NOT_THEIRS}
    program = Program(
        command=command,
        log=stack.state.path / "logs" / f"serve-{target}.log",
        environment={**settings, **beside, **listen.environment(), "LICTOR_TARGET": target, "PYTHONUNBUFFERED": "1"},
        stop_within_s=DRAIN_WITHIN_S,
        orphan_within_s=ORPHAN_WITHIN_S,
    )
    return Child(target, listen, GuardedProcess.launch(program))


def _await_ready(child: Child) -> None:
    process = child.process

    def settled() -> bool:
        return process.exit_status() is not None or _is_ready(child.listen)

    if not wait_for(settled, READY_WITHIN_S) or process.exit_status() is not None:
        raise EmbeddedError(f"the {child.target} server did not start, see {process.log}: {log_tail(process.log)}")


def _is_ready(listen: Listen) -> bool:
    connection = http.client.HTTPConnection(listen.host, listen.ops_port, timeout=1.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(started: list[Child]) -> None:
    for child in started:
        child.process.ask_to_stop()
    for child in started:
        child.process.wait()
