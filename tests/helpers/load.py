"""Callers that never pause, as a correct client makes them: no retry policy, no waiting for a server to be there.

grpc's own transparent retries are part of a correct client and stay on: a call that provably reached no server (it was
never sent, or the server's GOAWAY or RST_STREAM says that it was not looked at) goes to another one.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from tests.helpers.echo import SERVICE

BEARER: Final = grpc.aio.Metadata(("authorization", "Bearer all"))
TIMEOUT_S: Final = 20.0
LETTERS: Final = "abcdefghij" * 20
ROUNDS: Final = 8


class Load:
    """Calls through one channel. `failures` are those that did not get their right answer, `answered` counts the rest."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def method(name: str) -> str:
            return f"/{SERVICE}/{name}"

        send, read = CreateLicenseRequest.SerializeToString, StringValue.FromString
        self._unary = channel.unary_unary(method("Open"), send, read)
        self._expand = channel.unary_stream(method("Expand"), send, read)
        self._chat = channel.stream_stream(method("Chat"), send, read)
        self._numbers = count()
        self.stop = asyncio.Event()
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []

    async def short(self) -> None:
        """A call that is answered at once."""
        await self._answers(f"short {next(self._numbers)}")

    async def slow(self) -> None:
        """A call of 50 to 300 ms."""
        number = next(self._numbers)
        await self._answers(f"sleep:{0.05 + number % 6 * 0.05}:slow {number}")

    async def _answers(self, name: str) -> None:
        answer = await self._unary(CreateLicenseRequest(display_name=name), timeout=TIMEOUT_S, metadata=BEARER)
        assert answer.value == name.rpartition(":")[2], answer.value

    async def server_stream(self) -> None:
        """A stream of messages."""
        call = self._expand(CreateLicenseRequest(display_name=LETTERS), timeout=TIMEOUT_S, metadata=BEARER)
        assert "".join([letter.value async for letter in call]) == LETTERS

    async def ping_pong(self) -> None:
        """A stream both ways, some 200 ms long."""
        call = self._chat(timeout=TIMEOUT_S, metadata=BEARER)
        for number in range(ROUNDS):
            await call.write(CreateLicenseRequest(display_name=f"sleep:0.025:{number}"))
            answer = await call.read()
            assert isinstance(answer, StringValue), answer
            assert answer.value == str(number)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async def keep(self, make: Callable[[], Awaitable[None]]) -> None:
        """Makes one call after the other until `stop`."""
        name = make.__name__
        while not self.stop.is_set():
            try:
                await make()
                self.answered[name] += 1
            except (grpc.aio.AioRpcError, grpc.aio.UsageError, AssertionError) as error:
                told = f"{error.code().name} {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else error
                self.failures.append(f"{name}: {told!r}")
                await asyncio.sleep(0.01)


@asynccontextmanager
async def load(
    target: str, short: int = 6, slow: int = 6, streams: int = 2, service: Mapping[str, object] | None = None
) -> AsyncGenerator[Load]:
    """Load on `target` over one channel while the block runs: so many callers of each kind.

    `service` are further parts of the client's service config.
    """
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}], **(service or {})}
    options = (
        ("grpc.service_config", json.dumps(config)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 200),
        ("grpc.use_local_subchannel_pool", 1),
    )
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        made = Load(channel)
        async with asyncio.TaskGroup() as callers:
            kinds = ((made.short, short), (made.slow, slow), (made.server_stream, streams), (made.ping_pong, streams))
            for kind, number in kinds:
                for _ in range(number):
                    callers.create_task(made.keep(kind))
            try:
                yield made
            finally:
                made.stop.set()
