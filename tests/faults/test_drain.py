"""Processes are restarted under load, and no call is lost: every one gets its right answer, at the first attempt."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.embedded.ports import Listen, free_listens
from tests.helpers.echo import SERVICE, as_is
from tests.helpers.h2 import DATA, GOAWAY, Connection
from tests.helpers.load import BEARER, load
from tests.helpers.serving import (
    TRANSPORTS,
    echo_process,
    ended,
    needs_envoy,
    ops_get,
    samples,
    serve_echo,
    settled,
    until,
)

NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
WATCHES_HEALTH: Final = {"healthCheckConfig": {"serviceName": ""}}
"""What a client's service config says that leaves a process when its health does."""


async def answered(listen: Listen) -> float:
    """How many calls a process has answered."""
    _, text = await ops_get(listen, "/metrics")
    return sum(value for labels, value in samples(text, "lictor_calls_total").items() if ("service", SERVICE) in labels)


async def restarts_lose_no_call(folder: Path, transport: str, restarts: int) -> None:
    """Two processes behind one channel; one after the other leaves and comes back."""
    # grpc cancels calls that arrive before a client has read GOAWAY; so its clients must have left in the lame duck.
    options = {"lame_duck_s": "0.5"} if transport == "grpcio" else {"lame_duck_s": "0"}
    watching = WATCHES_HEALTH if transport == "grpcio" else {}
    listens = free_listens("127.0.0.1", 2)
    processes = [serve_echo(folder, listen, transport=transport, drain_s="10", **options) for listen in listens]

    async def takes_calls(listen: Listen) -> bool:
        return await answered(listen) > 0

    try:
        for process, listen in zip(processes, listens, strict=True):
            assert await settled(process, listen), process.log.read_text()
        target = "ipv4:" + ",".join(listen.api for listen in listens)
        async with load(target, service=watching) as calls:
            for listen in listens:
                await until(lambda listen=listen: takes_calls(listen))
            for number in range(restarts):
                at = number % 2
                os.kill(processes[at].pid, signal.SIGTERM)
                assert await ended(processes[at]) == 0, processes[at].log.read_text()
                processes[at] = serve_echo(folder, listens[at], transport=transport, drain_s="10", **options)
                assert await settled(processes[at], listens[at]), processes[at].log.read_text()
                await until(lambda at=at: takes_calls(listens[at]), 10)
    finally:
        for process in processes:
            await asyncio.to_thread(process.stop)
    assert calls.failures == []
    for kind, least in {"short": 100, "slow": 10, "server_stream": 5, "ping_pong": 3}.items():
        assert calls.answered[kind] >= least * restarts, calls.answered


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_restarts_lose_no_call(transport: str, tmp_path: Path) -> None:
    await restarts_lose_no_call(tmp_path, transport, 3)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_twenty_restarts_lose_no_call(transport: str, tmp_path: Path) -> None:
    await restarts_lose_no_call(tmp_path, transport, 20)


@needs_envoy
async def test_a_call_that_crosses_the_word_to_go_is_answered(tmp_path: Path) -> None:
    async with echo_process(tmp_path, drain_s="10") as (process, listen), asyncio.timeout(20):
        connection = await Connection.open(listen.host, listen.api_port)
        connection.call(1, "Chat", CreateLicenseRequest(display_name="first").SerializeToString(), end=False)
        assert b"first" in (await connection.until(DATA, 1)).payload
        os.kill(process.pid, signal.SIGTERM)
        assert (await connection.until(GOAWAY)).last_stream == 2**31 - 1, "the word to go refuses nothing yet"
        connection.call(3, "Open", CreateLicenseRequest(display_name="crossed").SerializeToString(), end=True)
        assert b"crossed" in (await connection.until(DATA, 3)).payload
        assert (await connection.until(GOAWAY)).last_stream == 3, "what comes from here on was not looked at"
        assert process.exit_status() is None, "a call is in flight"
        connection.end(1)
        await connection.closed()
        assert await ended(process) == 0


@needs_envoy
async def test_an_idle_connection_is_told_to_go_and_does_not_hold_the_process(tmp_path: Path) -> None:
    async with echo_process(tmp_path, drain_s="30") as (process, listen), asyncio.timeout(15):
        connection = await Connection.open(listen.host, listen.api_port)
        os.kill(process.pid, signal.SIGTERM)
        assert (await connection.until(GOAWAY)).last_stream == 2**31 - 1
        assert await ended(process) == 0
        await connection.closed()


@needs_envoy
async def test_a_call_that_does_not_end_is_cut_after_the_grace(tmp_path: Path) -> None:
    async with echo_process(tmp_path, drain_s="1") as (process, listen), asyncio.timeout(20):
        async with grpc.aio.insecure_channel(listen.api) as channel:
            raw = CreateLicenseRequest(display_name="sleep:60:never").SerializeToString()
            call = channel.unary_unary(f"/{SERVICE}/Open", as_is, as_is)(raw, timeout=60, metadata=BEARER)

            async def runs() -> bool:
                return bool(samples((await ops_get(listen, "/metrics"))[1], "lictor_in_flight")[()])

            await until(runs)
            os.kill(process.pid, signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError) as cut:
                await call
        assert (cut.value.code(), "shutting down" in (cut.value.details() or "")) == (grpc.StatusCode.UNAVAILABLE, True)
        assert await ended(process) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_lame_duck_serves_on_and_a_second_signal_hurries(
    transport: str, processes: str, tmp_path: Path
) -> None:
    async with echo_process(tmp_path, transport=transport, processes=processes, lame_duck_s="600") as (process, listen):
        os.kill(process.pid, signal.SIGTERM)
        ops_grpc = f"{listen.host}:{listen.ops_grpc_port}"
        async with grpc.aio.insecure_channel(listen.api) as api, grpc.aio.insecure_channel(ops_grpc) as ops:
            check = "/grpc.health.v1.Health/Check", as_is, health_pb2.HealthCheckResponse.FromString

            async def not_serving() -> bool:
                told = [await channel.unary_unary(*check)(b"", timeout=5) for channel in (api, ops)]
                return all(answer.status == NOT_SERVING for answer in told)

            await until(not_serving)
            assert (await ops_get(listen, "/readyz"))[0] == 503
            assert (await ops_get(listen, "/livez"))[0] == 200
            read = api.unary_unary(f"/{SERVICE}/Open", as_is, StringValue.FromString)
            raw = CreateLicenseRequest(display_name="Ada").SerializeToString()
            assert (await read(raw, timeout=5, metadata=BEARER)).value == "Ada"
        os.kill(process.pid, signal.SIGTERM)
        assert await ended(process) == 0, process.log.read_text()
