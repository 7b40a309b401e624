"""A whole process: its listeners, what it says of its health, and how it leaves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.clock import SystemClock
from shared.rpc.context import CallContext
from shared.rpc.routes import ServiceBinding
from shared.rpc.runtime import App, Bound, ServeSettings, serve
from tests.helpers.echo import ECHO, FILE, SERVICE, EchoAuthenticator, EchoServicer, as_is, refusal

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ANY = "127.0.0.1:0"
BEARER = grpc.aio.Metadata(("authorization", "Bearer all"))


@dataclass
class Process:
    servicer: EchoServicer = field(default_factory=EchoServicer)
    ready: bool = True
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    bound: asyncio.Future[Bound] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    task: asyncio.Task[None] | None = None

    async def ended(self) -> None:
        assert self.task is not None
        await asyncio.wait_for(asyncio.shield(self.task), 10)


@asynccontextmanager
async def process(lame_duck_s: float = 0.0, reflection: bool = False) -> AsyncGenerator[tuple[Process, Bound]]:
    running = Process()
    app = App([ServiceBinding(ECHO, running.servicer)], EchoAuthenticator(), lambda: running.ready)
    settings = ServeSettings(ANY, ANY, ANY, reflection=reflection, lame_duck_s=lame_duck_s, drain_s=5.0)
    running.task = asyncio.create_task(
        serve(app, settings, SystemClock(), on_ready=running.bound.set_result, stop=running.stop)
    )
    await asyncio.wait({running.task, running.bound}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield running, running.bound.result()
    finally:
        running.stop.set()
        if lame_duck_s and not running.task.done():
            running.task.cancel()
            await asyncio.wait({running.task})
        else:
            await running.ended()


async def health(address: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", as_is, health_pb2.HealthCheckResponse.FromString)
        answer = await check(health_pb2.HealthCheckRequest(service=service).SerializeToString(), timeout=5)
        return answer.status


async def get(bound: Bound, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{bound.ops_addr}{path}") as answer:
        return answer.status, await answer.text()


async def read(address: str, name: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Read", as_is, StringValue.FromString)
        request = CreateLicenseRequest(display_name=name).SerializeToString()
        return (await call(request, timeout=5, metadata=BEARER)).value


async def test_health_on_both_listeners() -> None:
    async with process() as (_, bound):
        for address in (bound.api_addr, bound.ops_grpc_addr):
            assert await health(address) == SERVING
            assert await health(address, SERVICE) == SERVING


async def test_the_ops_grpc_listener_serves_health_only() -> None:
    async with process() as (_, bound):
        assert await read(bound.api_addr, "Ada") == "Ada"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(bound.ops_grpc_addr, "Ada")
        assert refusal(caught.value).reason == "METHOD_UNKNOWN"


async def test_livez_readyz_metrics() -> None:
    async with process() as (running, bound):
        assert await read(bound.api_addr, "Ada") == "Ada"
        assert await get(bound, "/livez") == (200, "ok\n")
        assert await get(bound, "/readyz") == (200, "ready\n")
        status, text = await get(bound, "/metrics")
        assert status == 200
        assert f'lictor_calls_total{{code="OK",method="Read",reason="",service="{SERVICE}"}} 1.0' in text
        for name in ("lictor_call_seconds_bucket", "lictor_in_flight 0.0", "lictor_process_info{"):
            assert name in text
        running.ready = False
        assert await get(bound, "/readyz") == (503, "not ready\n")
        assert (await get(bound, "/livez"))[0] == 200


async def test_health_follows_readiness() -> None:
    async with process() as (running, bound), grpc.aio.insecure_channel(bound.ops_grpc_addr) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", as_is, health_pb2.HealthCheckResponse.FromString)(
            b""
        )
        states = aiter(watch)
        assert (await anext(states)).status == SERVING
        running.ready = False
        assert (await anext(states)).status == NOT_SERVING
        running.ready = True
        assert (await anext(states)).status == SERVING


async def test_reflection_lists_and_describes() -> None:
    request = reflection_pb2.ServerReflectionRequest
    async with process(reflection=True) as (_, bound), grpc.aio.insecure_channel(bound.api_addr) as channel:
        stream = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=request.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await stream.write(request(list_services=""))
        listed = await stream.read()
        assert isinstance(listed, reflection_pb2.ServerReflectionResponse)
        assert {service.name for service in listed.list_services_response.service} == {
            SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        await stream.write(request(file_containing_symbol=SERVICE))
        described = await stream.read()
        assert isinstance(described, reflection_pb2.ServerReflectionResponse)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(raw)
            for raw in described.file_descriptor_response.file_descriptor_proto
        ]
        assert FILE in {file.name for file in files}
        await stream.done_writing()


async def test_reflection_is_off_unless_asked_for() -> None:
    async with process() as (_, bound), grpc.aio.insecure_channel(bound.api_addr) as channel:
        stream = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", as_is, as_is)()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert refusal(caught.value).reason == "METHOD_UNKNOWN"


async def test_lame_duck_serves_on_and_a_second_signal_cuts_it_short() -> None:
    async with process(lame_duck_s=600) as (running, bound):
        async with grpc.aio.insecure_channel(bound.ops_grpc_addr) as channel:
            watch = channel.unary_stream(
                "/grpc.health.v1.Health/Watch", as_is, health_pb2.HealthCheckResponse.FromString
            )(b"")
            states = aiter(watch)
            assert (await anext(states)).status == SERVING
            os.kill(os.getpid(), signal.SIGTERM)
            assert (await anext(states)).status == NOT_SERVING
        assert await read(bound.api_addr, "Ada") == "Ada", "a lame duck still serves"
        assert (await get(bound, "/readyz"))[0] == 503
        assert (await get(bound, "/livez"))[0] == 200
        os.kill(os.getpid(), signal.SIGINT)
        await running.ended()
    with pytest.raises(grpc.aio.AioRpcError):
        await read(bound.api_addr, "Ada")


async def test_leaving_waits_for_calls_in_flight() -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def slow(request: CreateLicenseRequest, _context: CallContext) -> str:
        began.set()
        await go.wait()
        return request.display_name

    async with process() as (running, bound):
        running.servicer.behaviour = slow
        inside = asyncio.create_task(read(bound.api_addr, "Ada"))
        await began.wait()
        running.stop.set()
        assert running.task is not None
        done, _ = await asyncio.wait({running.task}, timeout=0.3)
        assert not done, "a call is in flight"
        go.set()
        assert await inside == "Ada"
        await running.ended()


async def test_leaving_waits_for_writes_whose_caller_left() -> None:
    began, go, wrote = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_request: CreateLicenseRequest, _context: CallContext) -> str:
        began.set()
        await go.wait()
        wrote.set()
        return ""

    async with process() as (running, bound), grpc.aio.insecure_channel(bound.api_addr) as channel:
        running.servicer.behaviour = slow
        write = channel.unary_unary(f"/{SERVICE}/Write", as_is, as_is)(b"", timeout=60, metadata=BEARER)
        await began.wait()
        write.cancel()
        running.stop.set()
        assert running.task is not None
        done, _ = await asyncio.wait({running.task}, timeout=0.3)
        assert not done, "the write goes on"
        go.set()
        await running.ended()
        assert wrote.is_set()


async def test_an_address_in_use_is_refused() -> None:
    async with process() as (_, bound):
        app = App([], EchoAuthenticator(), lambda: True)
        with pytest.raises(RuntimeError):
            await serve(app, ServeSettings(bound.api_addr, ANY, ANY, lame_duck_s=0), SystemClock())
        with pytest.raises(OSError, match="address already in use"):
            await serve(app, ServeSettings(ANY, bound.ops_addr, ANY, lame_duck_s=0), SystemClock())
