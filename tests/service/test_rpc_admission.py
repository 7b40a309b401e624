"""The front door: overload, draining, and what stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.rpc import admission
from shared.rpc.context import CallContext
from tests.helpers.echo import Echo, as_is, echo_server, refusal


@pytest_asyncio.fixture
async def echo() -> AsyncGenerator[Echo]:
    async with echo_server(max_in_flight=2) as running:
        yield running


class Held:
    """A behaviour that holds its calls until `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = asyncio.Semaphore(0)

    async def __call__(self, request: CreateLicenseRequest, _context: CallContext) -> str:
        self.inside.release()
        await self.go.wait()
        return request.display_name


async def health(echo: Echo, service: str = "") -> int:
    check = echo.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return (await check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status


async def test_overload(echo: Echo) -> None:
    held = Held()
    echo.servicer.behaviour = held
    calls = [echo.start("Read", CreateLicenseRequest(display_name=name)) for name in "ab"]
    for _ in calls:
        await held.inside.acquire()
    assert b"lictor_in_flight 2.0" in echo.metrics.exposition()[0]

    seen = await echo.refused("Read")
    assert (seen.code, seen.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert seen.retry_ms == 100
    assert await health(echo) == health_pb2.HealthCheckResponse.SERVING, "health is exempt"

    held.go.set()
    assert [(await call).value for call in calls] == ["a", "b"]
    assert await echo.call("Read", CreateLicenseRequest(display_name="c")) == "c"


async def test_health_watches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_STANDARD_STREAMS", 2)
    async with echo_server() as echo:
        watch = echo.channel.unary_stream("/grpc.health.v1.Health/Watch", as_is, as_is)
        held = [watch(b"") for _ in range(2)]
        for stream in held:
            await stream.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watch(b"").read()
        assert refusal(refused.value).reason == "OVERLOADED"
        assert await health(echo) == health_pb2.HealthCheckResponse.SERVING
        held[0].cancel()

        async def another() -> bool:
            return await watch(b"").read() != grpc.aio.EOF

        await until_admitted(another)


async def until_admitted(attempt: Callable[[], Awaitable[bool]]) -> None:
    """A cancelled stream leaves its place a moment later."""
    async with asyncio.timeout(5):
        while True:
            with suppress(grpc.aio.AioRpcError):
                assert await attempt()
                return


async def test_draining(echo: Echo) -> None:
    held = Held()
    echo.servicer.behaviour = held
    before = echo.start("Read", CreateLicenseRequest(display_name="a"))
    await held.inside.acquire()
    echo.gate.drain()
    seen = await echo.refused("Read")
    assert (seen.code, seen.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    await echo.board.leave()
    assert await health(echo) == health_pb2.HealthCheckResponse.NOT_SERVING, "health is exempt"
    held.go.set()
    assert (await before).value == "a", "calls in flight finish"


async def test_drain_waits_for_calls_in_flight_and_not_for_health_watches(echo: Echo) -> None:
    watch = echo.channel.unary_stream("/grpc.health.v1.Health/Watch", as_is, as_is)(b"")
    await watch.read()
    held = Held()
    echo.servicer.behaviour = held
    call = echo.start("Read", CreateLicenseRequest(display_name="a"))
    await held.inside.acquire()
    drain = asyncio.create_task(echo.transport.drain(30))
    held.go.set()
    assert (await call).value == "a"
    await asyncio.wait_for(drain, 5)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await watch.read()
    assert refusal(ended.value).reason == "DRAINING"


async def test_drain_cancels_what_does_not_end(echo: Echo) -> None:
    held = Held()
    echo.servicer.behaviour = held
    call = echo.start("Read")
    await held.inside.acquire()
    await asyncio.wait_for(echo.transport.drain(0.05), 5)
    assert await call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
