"""`lictor serve` as a process of its own, on a test's Postgres."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import uuid4

import aiohttp
import grpc.aio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.bootstrap import bootstrap_operator_key
from shared.db.migrate import migrate
from shared.embedded.ports import Listen, free_listen
from shared.embedded.process import GuardedProcess, Program
from shared.embedded.serving import SERVE
from shared.rpc.envoy.program import obstacle
from shared.rpc.runtime import Bound
from tests.helpers.embedded import TREE
from tests.helpers.lease import set_lease
from tests.helpers.suite import QUIET, Record, Suite, new_settings

READY_WITHIN_S: Final = 30.0
needs_envoy: Final = pytest.mark.skipif(obstacle() is not None, reason=f"NOT TESTED, the envoy transport: {obstacle()}")
TRANSPORTS: Final = (pytest.param("grpcio"), pytest.param("envoy", marks=needs_envoy))


@dataclass(frozen=True)
class Served:
    """A running process. `suite` is what a test knows of a suite, wherever it runs."""

    process: GuardedProcess
    listen: Listen
    suite: Suite

    async def get(self, path: str) -> tuple[int, str]:
        """An answer of the ops listener."""
        return await ops_get(self.listen, path)

    def log(self) -> str:
        """What the process has written so far."""
        return self.process.log.read_text()

    async def ended(self, within_s: float = 20.0) -> int:
        """Waits for the process's end and returns its status."""
        return await ended(self.process, within_s)


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], within_s: float = 5.0) -> None:
    """Waits for something in another process. TimeoutError when it does not come true in time."""
    async with asyncio.timeout(within_s):
        while True:
            seen = condition()
            if seen if isinstance(seen, bool) else await seen:
                return
            await asyncio.sleep(0.02)


async def ended(process: GuardedProcess, within_s: float = 20.0) -> int:
    """Waits for a process's end and returns its status."""
    await until(lambda: process.exit_status() is not None, within_s)
    status = process.exit_status()
    assert status is not None
    return status


async def ops_get(listen: Listen, path: str) -> tuple[int, str]:
    """An HTTP answer; status 0 where nothing answers."""
    url = f"http://{listen.host}:{listen.ops_port}{path}"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()
    except aiohttp.ClientError:
        return 0, ""


async def settled(process: GuardedProcess, listen: Listen) -> bool:
    """Waits until a process is ready (true) or has ended (false)."""

    async def either() -> bool:
        return process.exit_status() is not None or (await ops_get(listen, "/readyz"))[0] == 200

    await until(either, READY_WITHIN_S)
    return process.exit_status() is None


def launch(
    folder: Path, listen: Listen, environment: dict[str, str], command: Sequence[str | Path] = SERVE
) -> GuardedProcess:
    """Starts a process that serves; it ends with this one."""
    paths = f"{TREE}:{TREE / 'clients' / 'python'}"
    return GuardedProcess.launch(
        Program(
            command=command,
            log=folder / f"serve-{uuid4().hex}.log",
            environment={**listen.environment(), "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment},
            cwd=folder,
        )
    )


def json_listen() -> Listen:
    """Free ports for a process that takes JSON."""
    return replace(free_listen("127.0.0.1"), takes_json=True)


@asynccontextmanager
async def serving(
    postgres: Record,
    folder: Path,
    transport: str = "envoy",
    listen: Listen | None = None,
    /,
    **more: str,
) -> AsyncGenerator[Served]:
    """target=all over `transport`, on free ports unless told. `more` are settings without their prefix."""
    settings = new_settings(postgres, folder)
    await migrate(postgres.admin_dsn())
    await set_lease(postgres.admin_dsn())
    key_file = folder / f"operator-{uuid4().hex}"
    await bootstrap_operator_key(postgres.admin_dsn(), settings.root_secret_file, key_file)
    listen = listen or free_listen("127.0.0.1")
    environment = {
        "LICTOR_TARGET": "all",
        "LICTOR_TRANSPORT": transport,
        "LICTOR_POSTGRES_DSN": postgres.dsn(),
        "LICTOR_ROOT_SECRET_FILE": str(settings.root_secret_file),
        "LICTOR_KEK_FILE": str(settings.kek_file),
        "LICTOR_REFLECTION": "true",
        "LICTOR_LAME_DUCK_S": "0",
        "LICTOR_LOG_FORMAT": "text",
        **{f"LICTOR_{name.upper()}": "86400" for name in QUIET},
        **{f"LICTOR_{name.upper()}": value for name, value in more.items()},
    }
    process = launch(folder, listen, environment)
    try:
        assert await settled(process, listen), process.log.read_text()
        ops, ops_grpc = (f"{listen.host}:{port}" for port in (listen.ops_port, listen.ops_grpc_port))
        async with grpc.aio.insecure_channel(listen.api) as channel:
            operator_key = key_file.read_text().strip()
            suite = Suite(Bound(listen.api, ops, ops_grpc), settings, postgres.admin_dsn(), operator_key, channel)
            yield Served(process, listen, suite)
    finally:
        await asyncio.to_thread(process.stop)


def serve_echo(folder: Path, listen: Listen, **more: str) -> GuardedProcess:
    """The echo service, under Envoy unless told otherwise. `more` are settings without their prefix."""
    environment = {f"LICTOR_{name.upper()}": value for name, value in more.items()}
    return launch(folder, listen, environment, (sys.executable, "-m", "tests.helpers.envoy_echo"))


@asynccontextmanager
async def echo_process(folder: Path, **more: str) -> AsyncGenerator[tuple[GuardedProcess, Listen]]:
    """The same, ready, while the block runs."""
    listen = free_listen("127.0.0.1")
    process = serve_echo(folder, listen, **more)
    try:
        assert await settled(process, listen), process.log.read_text()
        yield process, listen
    finally:
        await asyncio.to_thread(process.stop)


def samples(exposition: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The values of one metric in an exposition, by their sorted labels."""
    found = (sample for family in text_string_to_metric_families(exposition) for sample in family.samples)
    return {tuple(sorted(sample.labels.items())): sample.value for sample in found if sample.name == name}


async def counted(suite: Suite, name: str, **labels: str) -> float:
    """What one metric of a suite is now."""
    async with aiohttp.ClientSession() as http, http.get(f"http://{suite.bound.ops_addr}/metrics") as answer:
        return samples(await answer.text(), name).get(tuple(sorted(labels.items())), 0.0)
