"""The four kinds of calls through Envoy, as a grpcio client sees them, and what of a call reaches its handler."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.wrappers_pb2 import StringValue
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.embedded.ports import Listen, free_listen
from shared.embedded.process import GuardedProcess
from tests.helpers.echo import SERVICE, as_is, refusal
from tests.helpers.serving import needs_envoy, ops_get, serve_echo, settled, until

pytestmark = needs_envoy
ALL = grpc.aio.Metadata(("authorization", "Bearer all"))


class EchoClient:
    def __init__(self, channel: grpc.aio.Channel, listen: Listen, process: GuardedProcess) -> None:
        self.channel = channel
        self.listen = listen
        self.process = process

    def unary(
        self, text: str = "", *, method: str = "Read", raw: bytes | None = None, timeout_s: float = 10.0,
        metadata: tuple[tuple[str, str | bytes], ...] = (), compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryUnaryCall[bytes, StringValue]:  # fmt: skip
        call = self.channel.unary_unary(f"/{SERVICE}/{method}", as_is, StringValue.FromString)
        sent = grpc.aio.Metadata(*ALL, *metadata)
        body = asked(text) if raw is None else raw
        return call(body, timeout=timeout_s, metadata=sent, compression=compression)

    async def refused(
        self, text: str = "", *, raw: bytes | None = None, timeout_s: float = 10.0
    ) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.unary(text, raw=raw, timeout_s=timeout_s)
        return caught.value

    async def count(self, method: str, code: str) -> float:
        _, text = await ops_get(self.listen, "/metrics")
        found = [
            line
            for line in text.splitlines()
            if line.startswith("lictor_calls_total{") and f'code="{code}",method="{method}"' in line
        ]
        return sum(float(line.rpartition(" ")[2]) for line in found)


def asked(text: str) -> bytes:
    return CreateLicenseRequest(display_name=text).SerializeToString()


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="echo")
async def _echo(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[EchoClient]:
    folder: Path = tmp_path_factory.mktemp("echo")
    listen = free_listen("127.0.0.1")
    process = serve_echo(folder, listen)
    try:
        assert await settled(process, listen), process.log.read_text()
        async with grpc.aio.insecure_channel(listen.api) as channel:
            yield EchoClient(channel, listen, process)
    finally:
        await asyncio.to_thread(process.stop)
    log = process.log.read_text()
    assert "Traceback" not in log, log
    assert "InvalidStateError" not in log, log


async def test_a_unary_call(echo: EchoClient) -> None:
    assert (await echo.unary("Ada")).value == "Ada"
    assert (await echo.unary("Ada", method="Write")).value == "Ada"


async def test_a_response_stream(echo: EchoClient) -> None:
    call = echo.channel.unary_stream(f"/{SERVICE}/Expand", as_is, StringValue.FromString)
    answers = [answer.value async for answer in call(asked("abc"), metadata=ALL, timeout=10)]
    assert answers == ["a", "b", "c"]
    assert [answer async for answer in call(asked(""), metadata=ALL, timeout=10)] == []


async def test_a_response_stream_larger_than_every_buffer(echo: EchoClient) -> None:
    call = echo.channel.unary_stream(f"/{SERVICE}/Expand", as_is, StringValue.FromString)
    received = 0
    async for _ in call(asked("big:20000"), metadata=ALL, timeout=30):
        received += 1
    assert received == 20000


async def test_a_request_stream(echo: EchoClient) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for letter in "abc":
            await asyncio.sleep(0.01)
            yield asked(letter)

    call = echo.channel.stream_unary(f"/{SERVICE}/Collect", as_is, StringValue.FromString)
    assert (await call(requests(), metadata=ALL, timeout=10)).value == "a,b,c"


async def test_streams_both_ways_take_turns(echo: EchoClient) -> None:
    stream = echo.channel.stream_stream(f"/{SERVICE}/Chat", as_is, StringValue.FromString)(metadata=ALL, timeout=10)
    for letter in "abc":
        await stream.write(asked(letter))
        answer = await stream.read()
        assert isinstance(answer, StringValue)
        assert answer.value == letter
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_an_error_within_a_stream(echo: EchoClient) -> None:
    stream = echo.channel.stream_stream(f"/{SERVICE}/Chat", as_is, StringValue.FromString)(metadata=ALL, timeout=10)
    await stream.write(asked("fine"))
    answer = await stream.read()
    assert isinstance(answer, StringValue)
    await stream.write(asked("fail"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert refusal(caught.value).reason == "LICENSE_NOT_FOUND"


async def test_an_error_has_its_details(echo: EchoClient) -> None:
    seen = refusal(await echo.refused("fail"))
    assert (seen.code, seen.message) == (grpc.StatusCode.NOT_FOUND, "no 100% näive license")
    assert dict(seen.info.metadata) == {"id": "lic_1"}
    assert seen.request_id.startswith("call_")


async def test_what_metadata_reaches_a_handler(echo: EchoClient) -> None:
    hidden = (("lictor-a", "1"), ("x-envoy-b", "1"), ("x-forwarded-for", "10.0.0.1"))
    shown = (("mine", "1"), ("mine", "2"), ("mine-bin", b"\0\xff"), ("mine-bin", b"abc"))
    answer = (await echo.unary("metadata", metadata=(*hidden, *shown))).value.splitlines()
    assert [line for line in answer if not line.startswith("user-agent=")] == [
        "mine='1'", "mine='2'", "mine-bin=b'\\x00\\xff'", "mine-bin=b'abc'"
    ]  # fmt: skip


async def test_metadata_that_a_handler_sends(echo: EchoClient) -> None:
    call = echo.unary("trail")
    assert (await call).value.startswith("ipv4:127.0.0.1:")
    first, last = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    assert (first["first"], first["first-bin"]) == ("1", b"\0\1")
    assert (last["last"], last["last-bin"]) == ("2", b"\xff")


async def test_compressed_requests_are_read_and_bombs_are_not(echo: EchoClient) -> None:
    assert (await echo.unary("Ada" * 500, compression=grpc.Compression.Gzip)).value == "Ada" * 500
    bomb = b"\x12\x80\x80\x80\x20" + b"\0" * (64 * 1024 * 1024)
    assert len(gzip.compress(bomb)) < 100_000
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.unary(raw=bomb, compression=grpc.Compression.Gzip)
    assert refusal(caught.value).violations == [("", "MESSAGE_TOO_LARGE")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.unary("Ada" * 500, compression=grpc.Compression.Deflate)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 2 * 1024 * 1024, 16 * 1024 * 1024])
async def test_a_message_over_the_limit(echo: EchoClient, size: int) -> None:
    for _ in range(5):
        assert refusal(await echo.refused(raw=b"\0" * size)).violations == [("", "MESSAGE_TOO_LARGE")]


async def test_a_message_over_the_limit_is_refused_before_its_sender_is_known(echo: EchoClient) -> None:
    call = echo.channel.unary_unary(f"/{SERVICE}/Read", as_is, as_is)(b"\0" * (2 * 1024 * 1024), timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert refusal(caught.value).violations == [("", "MESSAGE_TOO_LARGE")]
    assert dict(await call.initial_metadata()).keys() <= {"date"}


async def test_a_message_at_the_limit(echo: EchoClient) -> None:
    empty = len(CreateLicenseRequest(display_name="x" * 1_000_000).SerializeToString()) - 1_000_000
    text = "x" * (1024 * 1024 - empty)
    assert (await echo.unary(text)).value == text


async def test_headers_over_the_limit_end_the_call(echo: EchoClient) -> None:
    assert (await echo.unary("Ada", metadata=(("big", "x" * 15_000),))).value == "Ada"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.unary("Ada", metadata=(("big", "x" * 17_000),))
    assert caught.value.code() is grpc.StatusCode.INTERNAL, "Envoy resets the stream, without a word of ours"
    assert (await echo.unary("Ada")).value == "Ada", "and the connection goes on"


async def test_a_deadline(echo: EchoClient) -> None:
    error = await echo.refused("sleep:5", timeout_s=0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    call = echo.channel.unary_unary(f"/{SERVICE}/Hot", as_is, as_is)(asked("sleep:5"), metadata=ALL)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert refusal(caught.value).reason == "DEADLINE_TOO_SHORT", "a hot call without a deadline has a second"


async def test_a_cancelled_read_ends_its_handler(echo: EchoClient) -> None:
    before = await echo.count("Read", "CANCELLED")
    calls = [echo.unary("sleep:30", timeout_s=60) for _ in range(5)]
    await asyncio.sleep(0.2)
    for call in calls:
        call.cancel()

    async def counted() -> bool:
        return await echo.count("Read", "CANCELLED") == before + 5

    await until(counted)


async def test_a_burst_of_900_cancelled_calls_breaks_no_connection(echo: EchoClient) -> None:
    beside = echo.unary("sleep:3")
    chat = echo.channel.stream_stream(f"/{SERVICE}/Chat", as_is, as_is)
    for _ in range(9):
        streams = [chat(metadata=ALL) for _ in range(100)]
        await asyncio.gather(*(stream.write(asked("sleep:10")) for stream in streams))
        for stream in streams:
            stream.cancel()
        assert {await stream.code() for stream in streams} == {grpc.StatusCode.CANCELLED}
    assert (await beside).value == "slept"


async def test_a_stream_whose_caller_leaves_ends(echo: EchoClient) -> None:
    before = await echo.count("Chat", "CANCELLED")
    stream = echo.channel.stream_stream(f"/{SERVICE}/Chat", as_is, as_is)(metadata=ALL)
    await stream.write(asked("a"))
    await stream.read()
    stream.cancel()

    async def counted() -> bool:
        return await echo.count("Chat", "CANCELLED") == before + 1

    await until(counted)


async def test_a_thousand_calls_at_once_are_answered_or_told_to_come_back(echo: EchoClient) -> None:
    async def one(number: int) -> str:
        try:
            return (await echo.unary(f"sleep:{0.001 * (number % 20)}")).value
        except grpc.aio.AioRpcError as error:
            return refusal(error).reason

    outcomes = await asyncio.gather(*(one(number) for number in range(1000)))
    assert set(outcomes) <= {"slept", "OVERLOADED"}
    assert outcomes.count("slept") >= 250
