"""`lictor up`: the whole suite on a bare machine, until told to end. `start` and `start_split` are for the demo."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import TYPE_CHECKING, Final

import asyncpg

from shared.crypto.private_files import SecretFileError
from shared.db.migrate import MigrationError
from shared.db.roles import RoleRefusedError
from shared.embedded.errors import EmbeddedError
from shared.embedded.json_front import json_front
from shared.embedded.ports import PORTS, Listen, address, busy, free_listen, free_listens, loopback
from shared.embedded.process import GuardedProcess, wait_for
from shared.embedded.progress import Say, silent, step
from shared.embedded.serving import Child, children
from shared.embedded.stack import Stack, stack
from shared.embedded.state import AlreadyRunningError, RunRecord, StateDirectory
from shared.rpc.envoy.json_listener import mapped_services
from shared.rpc.envoy.program import has_stock_envoy, obstacle

if TYPE_CHECKING:
    from services.bootstrap import DemoKeys

DEFAULT_PORT: Final = 7420
HIGHEST_PORT: Final = 65535 - (PORTS - 1)
API_KEY: Final = "api-key"
SERVICES: Final = ("license", "entitlement", "machine", "webhook")
ANOTHER_WITHIN_S: Final = 60.0
"""How long a run that starts or stops may have the state directory before a second one gives up."""
ASK_AGAIN_S: Final = 3.0
EXPECTED: Final = (EmbeddedError, MigrationError, RoleRefusedError, SecretFileError, OSError, asyncpg.PostgresError)
"""What can go wrong on someone's machine, with a message that is enough."""


@dataclass(frozen=True, slots=True)
class Running:
    """A stack, its serving processes by target, and the demo account's keys."""

    stack: Stack
    children: Mapping[str, Child]
    keys: DemoKeys


def demo_keys(servers: Stack) -> DemoKeys:
    """The demo account's keys: made on the first start, kept beside the data from then on."""
    from services.bootstrap import DemoKeys, ensure_demo_account  # noqa: PLC0415 - loads the services; `--help` need not

    test, live = _key_name(servers, API_KEY), _key_name(servers, "api-key-live")
    kept_test, kept_live = servers.state.read(test), servers.state.read(live)
    if kept_test and kept_live:
        return DemoKeys(test_api_key=kept_test.strip(), live_api_key=kept_live.strip())
    made = asyncio.run(ensure_demo_account(servers.environment))
    servers.state.write(live, made.live_api_key + "\n")
    servers.state.write(test, made.test_api_key + "\n")
    return made


def _key_name(servers: Stack, name: str) -> str:
    """Keys belong to a database, so those of one that is not in the state directory are kept apart."""
    if servers.postgres is not None:
        return name
    return f"{name}-{hashlib.sha256(servers.environment['LICTOR_POSTGRES_DSN'].encode()).hexdigest()[:8]}"


def known_endpoint(state_dir: Path) -> str:
    """Where the stack of a state directory answers; where it does by default when it is not running."""
    record = StateDirectory(state_dir).read_run()
    return record.endpoint if record is not None else address("127.0.0.1", DEFAULT_PORT)


def known_api_key(state_dir: Path) -> str:
    """The test API key that a state directory keeps; empty when it keeps none."""
    state = StateDirectory(state_dir)
    record = state.read_run()
    return (state.read(Path(record.api_key_file).name if record is not None else API_KEY) or "").strip()


@contextmanager
def start(
    state_dir: Path, listens: Mapping[str, Listen] | None = None, *, durable: bool = True, say: Say = silent
) -> Generator[Running]:
    """A stack with the demo account and its serving processes: one for everything on free ports, unless told."""
    with stack(state_dir, durable=durable, say=say) as servers:
        with step(say, "making the demo account"):
            keys = demo_keys(servers)
        with children(servers, listens or {"all": free_listen("127.0.0.1")}, say=say) as started:
            yield Running(servers, started, keys)


@contextmanager
def start_split(state_dir: Path, *, durable: bool = True, say: Say = silent) -> Generator[Running]:
    """The same with a process of its own for each service, each as its own database role, on free ports."""
    listens: dict[str, Listen] = dict(zip(SERVICES, free_listens("127.0.0.1", len(SERVICES)), strict=True))
    with start(state_dir, listens, durable=durable, say=say) as running:
        yield running


def up(state_dir: Path, port: int | None, bind: str) -> int:
    """Runs the suite until Ctrl-C, SIGTERM or SIGHUP; returns the exit status. A second run shows the first."""
    try:
        return _run_or_show(state_dir, port, loopback(bind))
    except EXPECTED as error:
        sys.stderr.write(f"lictor up: {error}\n")
        return 1


def _run_or_show(state_dir: Path, port: int | None, host: str) -> int:
    limit = monotonic() + ANOTHER_WITHIN_S
    while True:
        try:
            return _run(state_dir, port, host)
        except AlreadyRunningError:
            record = _record_of_another(state_dir)
            if record is not None:
                _say(f"Lictor is already running (process {record.pid}).")
                _show(record)
                return 0
            if monotonic() > limit:
                raise
        _say(f"  waiting for another run that starts or stops in {state_dir}")


def _record_of_another(state_dir: Path) -> RunRecord | None:
    """What the run that holds the directory says of itself, if it does within a moment."""
    state = StateDirectory(state_dir)
    wait_for(lambda: state.read_run() is not None, ASK_AGAIN_S)
    return state.read_run()


def _run(state_dir: Path, port: int | None, host: str) -> int:
    up_at_all = False
    try:
        with _signals_interrupt(), ExitStack() as held:
            servers = held.enter_context(stack(state_dir, say=_say))
            listen = _listen(host, port)
            with step(_say, "making the demo account"):
                key = demo_keys(servers).test_api_key
            key_file = servers.state.path / _key_name(servers, API_KEY)
            json = _json_by(servers)
            listen = replace(listen, takes_json=json is JsonBy.SERVER)
            child = held.enter_context(children(servers, {"all": listen}, say=_say))["all"]
            watched = [child.process]
            if json is JsonBy.FRONT:
                with step(_say, "starting JSON over HTTP"):
                    watched.append(held.enter_context(json_front(servers.state, listen, _services())))
            with step(_say, "trying the call lines"):
                lines = _self_check(listen.api, key, state_dir)
                if json is not JsonBy.NOBODY:
                    lines += _curl_lines(listen.json, servers.state.write(f"{key_file.name}.header", _header(key)))
            if not lines:
                raise EmbeddedError(f"the server is up but no call got through, see {child.process.log}")
            json_url = "" if json is JsonBy.NOBODY else f"http://{listen.json}"
            record = RunRecord(os.getpid(), listen.api, str(key_file), tuple(lines), json_url)
            servers.state.write_run(record)
            up_at_all = True
            _show(record)
            _say(f"Logs: {child.process.log.parent}. Ctrl-C stops it; the data stay in {servers.state.path}.")
            embedded = (servers.postgres, servers.valkey)
            _watch([*watched, *(server.process for server in embedded if server is not None)])
    except KeyboardInterrupt:
        _say("Stopped." if up_at_all else "Stopped before it was up.")
    return 0 if up_at_all else 130


class JsonBy(Enum):
    """Who takes JSON over HTTP."""

    SERVER = auto()
    FRONT = auto()
    """An Envoy in front of a server that grpcio serves."""
    NOBODY = auto()


def _json_by(servers: Stack) -> JsonBy:
    if servers.environment["LICTOR_TRANSPORT"] != "grpcio" and obstacle() is None:
        return JsonBy.SERVER
    return JsonBy.FRONT if has_stock_envoy() else JsonBy.NOBODY


def _services() -> tuple[str, ...]:
    from services.main import PACKAGES  # noqa: PLC0415 - loads the services; `--help` need not
    from shared.settings import Target  # noqa: PLC0415

    return mapped_services(PACKAGES[Target.ALL])


def _header(key: str) -> str:
    """What curl reads, so that the key shows in no process list."""
    return f"authorization: Bearer {key}\n"


def _curl_lines(endpoint: str, header: Path) -> list[str]:
    from services.call import curl_lines  # noqa: PLC0415 - loads the client; `--help` need not

    return curl_lines(endpoint, header)


def _self_check(endpoint: str, key: str, state_dir: Path) -> list[str]:
    from services.call import self_check  # noqa: PLC0415 - loads the client; `--help` need not

    return self_check(endpoint, key, state_dir=state_dir)


def _watch(processes: list[GuardedProcess]) -> None:
    """Returns never; EmbeddedError when one of the processes ends by itself."""
    while True:
        for process in processes:
            if (status := process.exit_status()) is not None:
                raise EmbeddedError(f"a server ended by itself with status {status}, see {process.log}")
        sleep(0.1)


def _listen(host: str, port: int | None) -> Listen:
    first = DEFAULT_PORT if port is None else port
    if first > HIGHEST_PORT:
        raise EmbeddedError(f"--port takes four in a row, so {HIGHEST_PORT} is the highest")
    listen = Listen(host, first, first + 1, first + 2, first + 3)
    taken = busy(host, listen.ports)
    if not taken:
        return listen
    shown = ", ".join(str(number) for number in taken)
    if port is not None:
        raise EmbeddedError(f"in use on {host}: {shown}; --port takes four in a row ({first} to {listen.json_port})")
    other = free_listen(host)
    _say(f"In use, perhaps by another copy: {shown}. Taking port {other.api_port} instead.")
    return other


@contextmanager
def _signals_interrupt() -> Generator[None]:
    """The first signal that asks for an end interrupts; later ones do not disturb the stopping."""
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(record: RunRecord) -> None:
    key = Path(record.api_key_file).read_text().strip()
    _say(f"\nLictor answers at {record.endpoint}\nTest API key: {key}  (kept in {record.api_key_file})")
    if record.json_url:
        _say(f"JSON over HTTP: {record.json_url}")
    _say("\nTry:")
    for line in record.lines:
        _say(f"  {line}")
    _say("")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
