"""The world as the client sees it: a real gRPC server that speaks the contract and does as the test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]
from lictor import AsyncLictor
from lictor.account.v1.account_service_pb2 import WhoAmIResponse

from services.call import Method, methods

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True)
class Refusal:
    """A status to answer with; without a reason, a bare one as a proxy sends."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "refused"
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    violations: tuple[tuple[str, str, str], ...] = ()
    retry_after_ms: int | None = None

    def status(self) -> status_pb2.Status:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain="lictor.dev", metadata=self.metadata),
            error_details_pb2.RequestInfo(request_id="call_1"),
        ]
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for name, reason, description in self.violations:
                bad.field_violations.add(field=name, reason=reason, description=description)
            details.append(bad)
        if self.retry_after_ms is not None:
            wait = Duration()
            wait.FromMilliseconds(self.retry_after_ms)
            details.append(error_details_pb2.RetryInfo(retry_delay=wait))
        for detail in details:
            status.details.add().Pack(detail)
        return status


Answer = Callable[[bytes], Message]
MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True)
class Seen:
    """One call as it arrived."""

    path: str
    request_type: str
    request: bytes
    metadata: dict[str, str | bytes]
    time_left_s: float
    identities: tuple[str, ...] = ()
    """The alternative names in the caller's certificate."""


class Outside(grpc.GenericRpcHandler):
    """Answers every unary method of the contract: by script, or with an empty message."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.scripts: dict[str, list[Message | Refusal]] = {}
        self.answers: dict[str, Answer] = {}
        self.endpoint = ""

    def script(self, name: str, *steps: Message | Refusal) -> None:
        """The answers to the next calls of the method with this short name."""
        self.scripts[name] = list(steps)

    def requests(self, kind: type[MessageT]) -> list[MessageT]:
        """The requests of this type that arrived, in order."""
        name = kind.DESCRIPTOR.full_name
        return [kind.FromString(seen.request) for seen in self.seen if seen.request_type == name]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        method = methods().get(handler_call_details.method)
        if method is None:
            return None

        async def behave(body: bytes, context: Context) -> bytes:
            return await self._behave(method, body, context)

        return grpc.unary_unary_rpc_method_handler(behave)

    async def _behave(self, method: Method, body: bytes, context: Context) -> bytes:
        name = method.path.rpartition("/")[2]
        metadata = dict(context.invocation_metadata() or ())
        names = context.auth_context().get("x509_subject_alternative_name", ())
        identities = tuple(bytes(name).decode() for name in names)
        request_type = method.request.DESCRIPTOR.full_name
        self.seen.append(Seen(method.path, request_type, body, metadata, context.time_remaining(), identities))
        step: Message | Refusal | None = None
        if self.scripts.get(name):
            step = self.scripts[name].pop(0)
        elif name in self.answers:
            step = self.answers[name](body)
        if isinstance(step, Refusal):
            trailer = (("grpc-status-details-bin", step.status().SerializeToString()),) if step.reason else ()
            await context.abort(step.code, step.message, trailer)
        return b"" if step is None else step.SerializeToString()


@asynccontextmanager
async def running_outside(credentials: grpc.ServerCredentials | None = None) -> AsyncGenerator[Outside]:
    outside = Outside()
    server = grpc.aio.server(handlers=[outside], options=[("grpc.so_reuseport", 0)])
    here = "127.0.0.1:0"
    port = server.add_secure_port(here, credentials) if credentials else server.add_insecure_port(here)
    outside.endpoint = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield outside
    finally:
        await server.stop(None)


async def test_the_outside_speaks_the_contract() -> None:
    async with running_outside() as outside:
        outside.script("WhoAmI", WhoAmIResponse(account_id="acc_1"))
        async with AsyncLictor(api_key="sk_test_x", endpoint=outside.endpoint) as client:
            assert (await client.whoami()).account_id == "acc_1"
        assert outside.seen[0].metadata["authorization"] == "Bearer sk_test_x"
