"""A running conformance service, and what its callers see of a call."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from uuid import uuid4

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from shared.embedded.ports import Listen, free_listen
from shared.embedded.process import GuardedProcess
from shared.rpc.status import code_name
from tests.conformance import http2
from tests.conformance.servicer import CREDENTIAL
from tests.helpers.echo import as_is
from tests.helpers.serving import launch, ops_get, settled
from tests.protos.lictor_test.v1 import test_service_pb2 as pb
from tests.protos.lictor_test.v1.test_service_pb2_grpc import TestServiceStub

if TYPE_CHECKING:
    from tests.protos.lictor_test.v1.test_service_pb2_grpc import TestServiceAsyncStub

SERVICE: Final = "/lictor.test.v1.TestService"
MIB: Final = 1024 * 1024
MAX_MESSAGE_BYTES: Final = MIB
OWN_CONNECTION: Final = (("grpc.use_local_subchannel_pool", 1),)
"""Channels to one address share a connection otherwise."""

Values = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Served:
    """A process that serves `lictor.test.v1.TestService`, and a channel to it."""

    transport: str
    listen: Listen
    process: GuardedProcess
    channel: grpc.aio.Channel
    stub: TestServiceAsyncStub

    async def recall(self, name: str) -> pb.RecallResponse:
        """What the server knows of a named call."""
        return await self.stub.Recall(pb.RecallRequest(name=name), metadata=known(), timeout=10)

    async def bytes_outcome(self, path: str, body: bytes = b"") -> str:
        """How a unary call of any path with any bytes ends."""
        return await outcome(self.channel.unary_unary(path, as_is, as_is)(body, metadata=known(), timeout=10))

    async def count(self, method: str, code: str) -> float:
        """How many calls of a method have ended with a code, by the metrics."""
        _, text = await ops_get(self.listen, "/metrics")
        labels = f'lictor_calls_total{{code="{code}",method="{method}"'
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(labels))

    async def raw(
        self,
        body: bytes,
        *,
        method: str = "Unary",
        headers: Sequence[tuple[str, bytes]] = (),
        without: Sequence[str] = (),
        http: str = "POST",
    ) -> http2.Stream:
        """The answer to a request of one's own making, over a connection of its own."""
        async with http2.connect(self.listen.host, self.listen.api_port) as connection:
            sent = raw_headers(*headers, without=without)
            stream = await connection.request(f"{SERVICE}/{method}", sent, method=http)
            await stream.send(body, end=True)
            return await stream.answer()


@asynccontextmanager
async def own_channel(served: Served) -> AsyncGenerator[TestServiceAsyncStub]:
    """A stub over a connection of its own, for calls that fill it."""
    async with grpc.aio.insecure_channel(served.listen.api, options=OWN_CONNECTION) as channel:
        yield TestServiceStub(channel)


def known(*more: tuple[str, str | bytes]) -> grpc.aio.Metadata:
    """Metadata with the credential."""
    return grpc.aio.Metadata(("authorization", CREDENTIAL), *more)


def raw_headers(*more: tuple[str, bytes], without: Sequence[str] = ()) -> list[tuple[str, bytes]]:
    """The headers of a gRPC request; `more` take the place of those of the same name."""
    names = {name for name, _ in more} | set(without)
    own = [("content-type", b"application/grpc"), ("te", b"trailers"), ("authorization", CREDENTIAL.encode())]
    return [*((name, value) for name, value in own if name not in names), *more]


def name() -> str:
    """A name for a call that will be asked after."""
    return uuid4().hex


def values(metadata: object) -> list[tuple[str, str | bytes]]:
    """Metadata as a list of pairs, those of the handler only: what the transports and grpcio add is left out."""
    pairs = list(cast("Values", metadata))
    return [(key, value) for key, value in pairs if not key.startswith(("grpc-", "user-agent", "date", "content-type"))]


async def outcome(call: Awaitable[object], within_s: float = 20.0) -> str:
    """How a call ends: `OK`, or its code with what its details say: `INVALID_ARGUMENT MESSAGE_TOO_LARGE`."""
    try:
        async with asyncio.timeout(within_s):
            await call
    except grpc.aio.AioRpcError as error:
        trailing = dict(cast("Values", error.trailing_metadata() or ()))
        details = trailing.get("grpc-status-details-bin", b"")
        assert isinstance(details, bytes)
        return " ".join([error.code().name, *reasons(details)])
    return "OK"


def raw_outcome(answered: http2.Stream) -> str:
    """As `outcome`; `RESET` for a stream that was reset without a status, `HTTP 415` for what no gRPC client expects."""
    if not answered.blocks:
        return "RESET" if answered.reset is not None else "NOTHING"
    if answered.http_status != 200:
        return f"HTTP {answered.http_status}"
    assert answered.grpc_status is not None
    if answered.grpc_status == 0:
        return "OK"
    details = answered.blocks[-1].get("grpc-status-details-bin", "")
    found = reasons(base64.b64decode(details + "=" * (-len(details) % 4)))
    return " ".join([code_name(answered.grpc_status), *found])


def reasons(details: bytes) -> list[str]:
    """The reason of each violation; where there is none, of the error."""
    found: list[str] = []
    for packed in status_pb2.Status.FromString(details).details:
        bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        if packed.Unpack(bad):
            return [violation.reason for violation in bad.field_violations]
        if packed.Unpack(info):
            found.append(info.reason)
    return found


@asynccontextmanager
async def serving(transport: str, folder: Path, **environment: str) -> AsyncGenerator[Served]:
    """The service in a process of its own. When it ends, its log tells of no fault of ours."""
    listen = free_listen("127.0.0.1")
    command = (sys.executable, "-m", "tests.conformance.server", transport)
    process = launch(folder, listen, environment, command)
    try:
        assert await settled(process, listen), process.log.read_text()
        async with grpc.aio.insecure_channel(listen.api, options=OWN_CONNECTION) as channel:
            yield Served(transport, listen, process, channel, TestServiceStub(channel))
    finally:
        ended = process.exit_status()
        await asyncio.to_thread(process.stop)
    log = process.log.read_text()
    assert not ended, f"the process ended by itself with status {ended}: {log}"
    assert "unhandled exception" not in log, log
    # grpcio logs a traceback whenever a caller leaves just as its answer is ready.
    assert transport == "grpcio" or "Traceback" not in log, log
