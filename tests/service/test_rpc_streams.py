"""All kinds of RPC through the same chain."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import grpc
import pytest_asyncio
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.errors import DomainError, Reason
from shared.rpc.context import CallContext
from tests.helpers.echo import ECHO, Echo, as_is, echo_server, refusal

ALL = grpc.aio.Metadata(("authorization", "Bearer all"))


@pytest_asyncio.fixture
async def echo() -> AsyncGenerator[Echo]:
    async with echo_server() as running:
        yield running


def named(name: str) -> bytes:
    return CreateLicenseRequest(display_name=name).SerializeToString()


async def requests(*raw: bytes) -> AsyncIterator[bytes]:
    for one in raw:
        yield one


async def texts(stream: AsyncIterator[bytes]) -> list[str]:
    return [StringValue.FromString(raw).value async for raw in stream]


async def test_unary_stream(echo: Echo) -> None:
    stream = echo.channel.unary_stream(f"/{ECHO.full_name}/Expand", as_is, as_is)(named("abc"), metadata=ALL)
    assert await texts(aiter(stream)) == ["a", "b", "c"]
    assert await stream.code() is grpc.StatusCode.OK
    assert echo.count("Expand", "OK") == 1


async def test_stream_unary(echo: Echo) -> None:
    call = echo.channel.stream_unary(f"/{ECHO.full_name}/Collect", as_is, as_is)
    raw = await call(requests(named("a"), named("b")), metadata=ALL)
    assert StringValue.FromString(raw).value == "a,b"


async def test_stream_stream(echo: Echo) -> None:
    stream = echo.channel.stream_stream(f"/{ECHO.full_name}/Chat", as_is, as_is)(metadata=ALL)
    for name in ("a", "b"):
        await stream.write(named(name))
        answer = await stream.read()
        assert isinstance(answer, bytes)
        assert StringValue.FromString(answer).value == name
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_bad_message_in_a_stream_ends_it(echo: Echo) -> None:
    stream = echo.channel.stream_stream(f"/{ECHO.full_name}/Chat", as_is, as_is)(metadata=ALL)
    await stream.write(named("a"))
    await stream.read()
    await stream.write(named("\0"))
    try:
        await stream.read()
        raise AssertionError("the stream went on")
    except grpc.aio.AioRpcError as error:
        assert refusal(error).violations == [("display_name", "NUL_IN_STRING")]


async def test_a_stream_that_fails_after_answers(echo: Echo) -> None:
    async def fail_at_b(request: CreateLicenseRequest, _context: CallContext) -> str:
        if request.display_name == "b":
            raise DomainError(Reason.LICENSE_NOT_FOUND, "no such license")
        return request.display_name

    echo.servicer.behaviour = fail_at_b
    stream = echo.channel.stream_stream(f"/{ECHO.full_name}/Chat", as_is, as_is)(metadata=ALL)
    await stream.write(named("a"))
    assert await stream.read() == StringValue(value="a").SerializeToString()
    await stream.write(named("b"))
    try:
        await stream.read()
        raise AssertionError("the stream went on")
    except grpc.aio.AioRpcError as error:
        assert refusal(error).reason == "LICENSE_NOT_FOUND"


async def test_streams_need_a_credential_too(echo: Echo) -> None:
    stream = echo.channel.unary_stream(f"/{ECHO.full_name}/Expand", as_is, as_is)(named("abc"))
    try:
        await texts(aiter(stream))
        raise AssertionError("the stream was served")
    except grpc.aio.AioRpcError as error:
        assert refusal(error).reason == "CREDENTIALS_INVALID"


async def test_unknown_method_called_as_a_stream(echo: Echo) -> None:
    stream = echo.channel.stream_stream(f"/{ECHO.full_name}/Nope", as_is, as_is)(metadata=ALL)
    try:
        await stream.read()
        raise AssertionError("the stream was served")
    except grpc.aio.AioRpcError as error:
        assert refusal(error).reason == "METHOD_UNKNOWN"


async def test_health_watch_through_the_writing_interface(echo: Echo) -> None:
    watch = echo.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest(service=""))
    seen: list[int] = []
    async for answer in watch:
        seen.append(answer.status)
        if len(seen) == 2:
            break
        await echo.board.leave()
    watch.cancel()
    assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


async def test_health_of_an_unknown_service(echo: Echo) -> None:
    check = echo.channel.unary_unary("/grpc.health.v1.Health/Check", as_is, as_is)
    try:
        await check(health_pb2.HealthCheckRequest(service="no.such.Service").SerializeToString())
        raise AssertionError("an unknown service has a health")
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_codes_and_metadata_set_as_with_grpc(echo: Echo) -> None:
    async def set_by_hand(_request: CreateLicenseRequest, context: CallContext) -> str:
        await context.send_initial_metadata((("x-head", "1"),))
        context.set_trailing_metadata((("x-tail", "2"),))
        if _request.display_name == "bad":
            context.set_code(grpc.StatusCode.OUT_OF_RANGE)
            context.set_details("too far")
        return ""

    echo.servicer.behaviour = set_by_hand
    good = echo.start("Read")
    await good
    assert ("x-head", "1") in list(await good.initial_metadata())
    assert ("x-tail", "2") in list(await good.trailing_metadata())
    bad = echo.start("Read", CreateLicenseRequest(display_name="bad"))
    assert (await bad.code(), await bad.details()) == (grpc.StatusCode.OUT_OF_RANGE, "too far")
    assert ("x-tail", "2") in list(await bad.trailing_metadata())
