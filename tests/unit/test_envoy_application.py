"""The ASGI application without an Envoy: requests that no gRPC client sends, and callers that leave at the wrong moment."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]

from shared.errors import Code, DomainError, Reason
from shared.observe.metrics import Metrics
from shared.rpc.context import CallContext
from shared.rpc.envoy import request as envoy_request
from shared.rpc.envoy.bootstrap import EnvoySettings, bootstrap
from shared.rpc.envoy.calls import EnvoyCalls
from shared.rpc.envoy.frames import frame
from shared.rpc.envoy.wire import AsgiWire, Event
from shared.rpc.live import LiveCalls
from shared.rpc.routes import Body, Endpoint, Route, method_spec
from tests.helpers.echo import ECHO, SERVICE
from tests.helpers.serving import until

GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]


async def echo(context: CallContext, body: Body) -> bytes:
    assert isinstance(body, bytes)
    return body


class Server:
    """The other side of ASGI. `events` are what `receive()` says, in turn; afterwards it waits for more."""

    def __init__(self, *events: Event) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        for event in events:
            self.events.put_nowait(event)
        self.sent: list[Event] = []
        self.futures: list[asyncio.Future[Event]] = []
        self.gone = False

    def receive(self) -> asyncio.Future[Event]:
        future = asyncio.ensure_future(self.events.get())
        self.futures.append(future)
        return future

    async def send(self, event: Event) -> None:
        if self.gone:
            raise ConnectionError
        self.sent.append(event)

    @property
    def status(self) -> str:
        """`grpc-status`, wherever it was sent."""
        headers = [pair for event in self.sent for pair in event.get("headers", [])]
        return dict(headers).get(b"grpc-status", b"").decode()


class Calls:
    """The application over `Read` and `Chat` of the echo service."""

    def __init__(self, endpoint: Endpoint = echo) -> None:
        self.live = LiveCalls()
        self.application = EnvoyCalls(self.live, Metrics())
        specs = {name: method_spec(ECHO.methods_by_name[name]) for name in ("Read", "Collect")}
        self.application.serve({spec.path: Route(spec, endpoint) for spec in specs.values()})

    async def call(
        self, server: Server, *, method: str = "POST", name: str = "Read", headers: list[tuple[bytes, bytes]] = GRPC
    ) -> None:
        scope = {
            "type": "http", "method": method, "raw_path": f"/{SERVICE}/{name}".encode(), "headers": headers,
            "client": ("::1", 5000),
        }  # fmt: skip
        async with asyncio.timeout(5):
            await self.application(scope, server.receive, server.send)
        assert await self.live.idle(0)


def part(body: bytes, more: bool = False) -> Event:
    return {"type": "http.request", "body": body, "more_body": more}


LEFT: Event = {"type": "http.disconnect"}


async def test_one_message_is_answered() -> None:
    server = Server(part(frame(b"abc")))
    await Calls().call(server)
    assert [event["type"] for event in server.sent] == [
        "http.response.start", "http.response.body", "http.response.trailers"
    ]  # fmt: skip
    assert (server.sent[1]["body"], server.status) == (frame(b"abc"), "0")


async def test_a_message_in_parts() -> None:
    server = Server(part(b"\0\0", True), part(b"\0\0\3ab", True), part(b"c", True), part(b""))
    await Calls().call(server)
    assert server.sent[1]["body"] == frame(b"abc")


@pytest.mark.parametrize(
    "events",
    [
        [part(b"")],
        [part(frame(b"a") + frame(b"b"))],
        [part(frame(b"a"), True), part(frame(b"b"))],
        [part(frame(b"abc")[:-1])],
    ],
)
async def test_a_request_that_is_not_one_message(events: list[Event]) -> None:
    async def never(_context: CallContext, _body: Body) -> bytes:
        raise AssertionError("the handler ran")

    server = Server(*events)
    await Calls(never).call(server)
    assert server.status == str(Code.INTERNAL.value)
    assert [event["type"] for event in server.sent] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("GET", GRPC, 405), ("POST", [(b"content-type", b"application/json")], 415), ("POST", [], 415)],
)
async def test_what_is_not_grpc(method: str, headers: list[tuple[bytes, bytes]], status: int) -> None:
    server = Server(part(b""))
    await Calls().call(server, method=method, headers=headers)
    assert server.sent[0]["status"] == status


async def test_a_client_that_takes_no_trailers_is_told() -> None:
    server = Server(part(frame(b"")))
    await Calls().call(server, headers=GRPC[:1])
    assert server.status == str(Code.INTERNAL.value)


async def test_a_request_that_does_not_come_in_time() -> None:
    server = Server(part(b"\0\0", True))

    async def hang_up() -> None:
        await until(lambda: bool(server.status))
        server.events.put_nowait(part(b"\0\0\0"))  # too late

    hanging_up = asyncio.create_task(hang_up())
    await Calls().call(server, headers=[*GRPC, (b"grpc-timeout", b"30m")])
    assert server.status == str(Code.DEADLINE_EXCEEDED.value)
    await hanging_up


async def test_a_request_that_comes_in_the_moment_in_which_its_time_is_over() -> None:
    server = Server()
    loop = asyncio.get_running_loop()

    def receive() -> asyncio.Future[Event]:
        request: asyncio.Future[Event] = loop.create_future()
        loop.call_later(0.0001, request.set_result, part(frame(b"abc")))
        loop.call_soon(time.sleep, 0.02)  # both are due when the loop looks again
        return request

    server.receive = receive
    await Calls().call(server, headers=[*GRPC, (b"grpc-timeout", b"5m")])
    await asyncio.sleep(0)
    assert [event["type"] for event in server.sent] == [
        "http.response.start", "http.response.body", "http.response.trailers"
    ]  # fmt: skip


async def _until_cancelled(started: asyncio.Event, _context: CallContext, _body: Body) -> bytes:
    started.set()
    await asyncio.sleep(60)
    return b""


@pytest.mark.parametrize("name", ["Read", "Collect"])
async def test_a_caller_that_leaves_cancels_its_handler_and_no_future_of_the_server(name: str) -> None:
    started = asyncio.Event()
    endpoint: Callable[[CallContext, Body], Any] = lambda context, body: _until_cancelled(started, context, body)  # noqa: E731
    server = Server(part(frame(b"a"), name == "Collect"))
    call = asyncio.create_task(Calls(endpoint).call(server, name=name))
    await started.wait()
    server.events.put_nowait(LEFT)
    await call
    assert server.sent == []
    assert not any(future.cancelled() for future in server.futures)


async def test_calls_that_are_cut_are_told_that_the_process_leaves() -> None:
    started = asyncio.Event()
    calls = Calls(lambda context, body: _until_cancelled(started, context, body))
    server = Server(part(frame(b"a")))
    call = asyncio.create_task(calls.call(server))
    await started.wait()
    calls.application.cut()
    await call
    assert server.status == str(Code.UNAVAILABLE.value)


async def test_a_caller_that_leaves_before_its_answer_harms_nothing() -> None:
    server = Server(part(frame(b"a")))
    server.gone = True
    await Calls().call(server)
    assert server.sent == []


async def test_what_the_server_raises_keeps_nothing_of_the_calls() -> None:
    same = ConnectionError()  # as in pyvoy, for every caller that has left

    async def send(_event: Event) -> None:
        raise same

    refusal = status_pb2.Status(code=Code.INTERNAL.value)
    await AsgiWire(None, send).finish(b"answer", ())
    await AsgiWire(None, send).refuse(refusal, ())
    with pytest.raises(asyncio.CancelledError):
        await AsgiWire(None, send).send(b"message")
    assert same.__traceback__ is None


async def test_a_message_whose_sending_fails_after_its_call_was_cancelled() -> None:
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    pending = list[asyncio.Future[None]]()

    def send(event: Event) -> asyncio.Future[None]:
        pending.append(loop.create_future())
        if event["type"] == "http.response.start":
            pending[-1].set_result(None)
        return pending[-1]

    wire = AsgiWire(None, send)
    try:
        sending = asyncio.create_task(wire.send(b"message"))
        await until(lambda: len(pending) == 2)
        sending.cancel()
        await asyncio.wait({sending})
        pending[1].set_exception(ConnectionError())
        await until(lambda: wire.gone)
        del pending[:], sending
        gc.collect()
    finally:
        loop.set_exception_handler(None)
    assert complaints == []


async def test_a_request_stream_is_read_only_so_far_ahead_of_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_request, "READ_AHEAD_BYTES", 1000)
    server = Server(*(part(frame(b"x" * 300), True) for _ in range(50)), part(b""))
    held: list[int] = []

    async def slow(_context: CallContext, body: Body) -> bytes:
        assert not isinstance(body, bytes)
        messages = aiter(body)
        await until(lambda: server.events.qsize() <= 50 - 3)
        for _ in range(3):
            held.append(server.events.qsize())
            await asyncio.sleep(0)
        read = [await anext(messages)]
        return b"".join(read + [message async for message in messages])

    await Calls(slow).call(server, name="Collect")
    assert min(held) >= 51 - 1000 // 305 - 1
    assert server.sent[1]["body"] == frame(b"x" * 300 * 50)


async def test_a_message_longer_than_what_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_request, "READ_AHEAD_BYTES", 10)

    async def all_of(_context: CallContext, body: Body) -> bytes:
        assert not isinstance(body, bytes)
        return b"|".join([message async for message in body])

    long = frame(b"x" * 300)
    server = Server(*(part(long[at : at + 50], True) for at in range(0, len(long), 50)), part(frame(b"y")))
    await Calls(all_of).call(server, name="Collect")
    assert server.sent[1]["body"] == frame(b"x" * 300 + b"|y")


async def test_many_small_messages_let_other_calls_have_their_turn() -> None:
    turns: list[int] = []

    async def count(_context: CallContext, body: Body) -> bytes:
        assert not isinstance(body, bytes)
        return b"%d" % len([message async for message in body])

    server = Server(part(frame(b"") * 10_000))
    call = asyncio.create_task(Calls(count).call(server, name="Collect"))
    while not call.done():
        turns.append(len(turns))
        await asyncio.sleep(0)
    await call
    assert server.sent[1]["body"] == frame(b"10000")
    assert len(turns) > 100


async def test_an_error_of_a_handler() -> None:
    async def refuse(_context: CallContext, _body: Body) -> bytes:
        raise DomainError(Reason.LICENSE_NOT_FOUND, "no such license")

    server = Server(part(frame(b"a")))
    await Calls(refuse).call(server)
    assert server.status == "5"


def test_the_bootstrap_has_the_limits(tmp_path: Path) -> None:
    made = bootstrap(tmp_path, EnvoySettings("[::1]:7420", "a:b", json_logs=True))
    [listener] = made["static_resources"]["listeners"]
    assert listener["address"]["socket_address"] == {"address": "::1", "port_value": 7420}
    assert (listener["enable_reuse_port"], listener["per_connection_buffer_limit_bytes"]) == (False, 1024 * 1024)
    [http] = listener["filter_chains"][0]["filters"]
    config = http["typed_config"]
    assert config["codec_type"] == "HTTP2"
    assert config["use_remote_address"] is True
    assert config["max_request_headers_kb"] == 16
    assert "http3" not in str(made).lower()
    assert made["admin"]["address"]["pipe"]["mode"] == 0o600


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("127.0.0.1:0", {"address": "127.0.0.1", "port_value": 0}),
        ("[::]:7420", {"address": "::", "port_value": 7420, "ipv4_compat": True}),
    ],
)
def test_where_envoy_listens(tmp_path: Path, given: str, address: Event) -> None:
    [listener] = bootstrap(tmp_path, EnvoySettings(given, "a:b", json_logs=False))["static_resources"]["listeners"]
    assert listener["address"]["socket_address"] == address


def test_a_name_becomes_a_number(tmp_path: Path) -> None:
    [listener] = bootstrap(tmp_path, EnvoySettings("localhost:1", "a:b", json_logs=False))["static_resources"][
        "listeners"
    ]
    assert listener["address"]["socket_address"]["address"] in ("127.0.0.1", "::1")
