"""Several processes on one port: one of them dies or hangs, or all do, or the one that watches over them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.embedded.ports import Listen, free_listen
from shared.embedded.process import GuardedProcess
from tests.helpers.echo import SERVICE, as_is
from tests.helpers.embedded import alive
from tests.helpers.load import BEARER, Load, load
from tests.helpers.serving import TRANSPORTS, echo_process, ended, ops_get, samples, serve_echo, until

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


def children(process: GuardedProcess) -> list[int]:
    """The processes that serve."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], text=True, capture_output=True, check=True).stdout
    return [int(pid) for pid, parent in map(str.split, listed.splitlines()) if int(parent) == process.pid]


async def values(listen: Listen, name: str) -> dict[str, float]:
    """A metric's sum by process."""
    found: dict[str, float] = {}
    for labels, value in samples((await ops_get(listen, "/metrics"))[1], name).items():
        process = dict(labels)["process"]
        found[process] = found.get(process, 0.0) + value
    return found


async def restarts(listen: Listen) -> float:
    return sum((await values(listen, "lictor_process_restarts_total")).values())


async def whole(listen: Listen) -> bool:
    """Whether both processes tell their metrics."""
    return set(await values(listen, "lictor_in_flight")) == {"0", "1"}


@asynccontextmanager
async def two(folder: Path, transport: str, **options: str) -> AsyncGenerator[tuple[GuardedProcess, Listen]]:
    """A group of two, both up: it is ready with the first."""
    async with echo_process(folder, transport=transport, processes="2", **options) as (process, listen):
        await until(lambda: whole(listen), 20)
        yield process, listen


async def echo(api: str, name: str) -> str:
    async with grpc.aio.insecure_channel(api) as channel:
        read = channel.unary_unary(f"/{SERVICE}/Open", as_is, StringValue.FromString)
        raw = CreateLicenseRequest(display_name=name).SerializeToString()
        return (await read(raw, timeout=10, metadata=BEARER)).value


@asynccontextmanager
async def load_on_both(listen: Listen) -> AsyncGenerator[list[Load]]:
    """Connections until both processes serve calls."""
    async with AsyncExitStack() as stack:
        loads: list[Load] = []

        async def both() -> bool:
            loads.append(await stack.enter_async_context(load(listen.api, short=1, slow=2, streams=0)))
            await until(lambda: bool(loads[-1].answered["short"]))
            return all((await values(listen, "lictor_calls_total")).values())

        await until(both, 20)
        yield loads


async def test_one_that_is_killed_takes_only_its_calls_along(transport: str, tmp_path: Path) -> None:
    async with two(tmp_path, transport) as (process, listen):
        readiness: list[int] = []

        async def probe() -> None:
            while True:
                readiness.append((await ops_get(listen, "/readyz"))[0])
                await asyncio.sleep(0.01)

        async with load_on_both(listen) as loads:
            probing = asyncio.create_task(probe())
            victim, other = children(process)
            os.kill(victim, signal.SIGKILL)

            async def replaced() -> bool:
                return await restarts(listen) == 1 and await whole(listen)

            await until(replaced, 10)
            before = [each.answered["short"] for each in loads]
            failed = sum(len(each.failures) for each in loads)
            await until(lambda: all(each.answered["short"] > had for each, had in zip(loads, before, strict=True)))
            probing.cancel()
        failures = [failure for each in loads for failure in each.failures]
        assert all("UNAVAILABLE" in failure for failure in failures), failures
        assert len(failures) == failed, "only calls in flight, and those of callers that meet its port as it dies"
        assert any(not each.failures for each in loads), "the other process serves on"
        assert set(readiness) == {200}
        assert len(readiness) > 10
        assert other in children(process)
        assert "ended by itself with status -9" in process.log.read_text()


async def test_one_that_hangs_is_replaced(transport: str, tmp_path: Path) -> None:
    async with two(tmp_path, transport, hung_after_s="3") as (process, listen):
        victim = children(process)[0]
        os.kill(victim, signal.SIGSTOP)

        async def replaced() -> bool:
            assert (await ops_get(listen, "/readyz"))[0] == 200
            return await restarts(listen) == 1 and await whole(listen)

        await until(replaced, 20)
        assert not alive(victim)
        assert (await ops_get(listen, "/livez"))[0] == 200
        assert "did not answer for 3 s" in process.log.read_text()


async def test_nobody_outlives_the_one_that_watches(transport: str, tmp_path: Path) -> None:
    async with two(tmp_path, transport) as (process, listen):
        serving = children(process)
        assert len(serving) == 2
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: not any(alive(pid) for pid in serving), 10)
        again = serve_echo(tmp_path, listen, transport=transport, processes="2")
        try:
            await until(lambda: again.exit_status() is not None or "watching over" in again.log.read_text(), 10)
            assert again.exit_status() is None, again.log.read_text()
        finally:
            await asyncio.to_thread(again.stop)


async def test_health_over_grpc_is_that_of_the_group(transport: str, tmp_path: Path) -> None:
    async with (
        two(tmp_path, transport) as (_, listen),
        grpc.aio.insecure_channel(f"{listen.host}:{listen.ops_grpc_port}") as channel,
    ):
        check = channel.unary_unary("/grpc.health.v1.Health/Check", as_is, health_pb2.HealthCheckResponse.FromString)
        for service in ("", SERVICE):
            asked = health_pb2.HealthCheckRequest(service=service).SerializeToString()
            assert (await check(asked, timeout=5)).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await check(health_pb2.HealthCheckRequest(service="nobody").SerializeToString(), timeout=5)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_port_0_is_the_same_for_all(transport: str, tmp_path: Path) -> None:
    listen = replace(free_listen("127.0.0.1"), api_port=0)
    process = serve_echo(tmp_path, listen, transport=transport, processes="2")
    try:
        await until(lambda: process.log.read_text().count("  api=127.0.0.1:") == 2, 20)
        found = {word.removeprefix("api=") for word in process.log.read_text().split() if word.startswith("api=")}
        assert len(found) == 1
        assert await echo(found.pop(), "Ada") == "Ada"
    finally:
        await asyncio.to_thread(process.stop)


async def test_sigterm_before_they_are_up(transport: str, tmp_path: Path) -> None:
    process = serve_echo(tmp_path, free_listen("127.0.0.1"), transport=transport, processes="2")
    try:
        await until(lambda: process.log.read_text().count(" started ") == 2, 20)
        os.kill(process.pid, signal.SIGTERM)
        assert await ended(process) == 0, process.log.read_text()
    finally:
        await asyncio.to_thread(process.stop)


async def test_a_port_of_somebody_else_is_refused(transport: str, tmp_path: Path) -> None:
    async with echo_process(tmp_path, transport="grpcio") as (_, taken):
        for name in ("api_port", "ops_port", "ops_grpc_port"):
            free = free_listen("127.0.0.1")
            listen = replace(free, **{name: getattr(taken, name)})
            process = serve_echo(tmp_path, listen, transport=transport, processes="2")
            try:
                assert await ended(process) == 1
                assert "ddress already in use" in process.log.read_text().splitlines()[-1], process.log.read_text()
            finally:
                await asyncio.to_thread(process.stop)


async def test_a_start_that_fails_the_same_way_everywhere_ends_all(transport: str, tmp_path: Path) -> None:
    process = serve_echo(tmp_path, free_listen("127.0.0.1"), transport=transport, processes="2", fail="no such thing")
    try:
        assert await ended(process) == 1
        # Both write to one log: what Envoy says of the other may stand at the beginning of the line.
        assert process.log.read_text().splitlines()[-1].endswith("no such thing")
        assert "another takes its place" not in process.log.read_text()
    finally:
        await asyncio.to_thread(process.stop)


async def test_processes_that_die_again_and_again_are_given_up(transport: str, tmp_path: Path) -> None:
    listen = free_listen("127.0.0.1")
    process = serve_echo(tmp_path, listen, transport=transport, processes="2", crash="yes")
    try:
        assert await ended(process, 50) == 1
        log = process.log.read_text()
        assert "no process came to serve in 5 attempts each" in log.splitlines()[-1]
        assert "after_s=0.4" in log, "the delay grows"
    finally:
        await asyncio.to_thread(process.stop)
