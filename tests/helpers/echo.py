"""A small service on a real `grpc.aio` server, for the tests of what surrounds every service.

Requests are `CreateLicenseRequest`: it has nested, mapped and redacted fields. Each test sets `servicer.behaviour`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]
from lictor.common.v1 import options_pb2
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.errors import DomainError, Reason
from shared.observe.metrics import Metrics
from shared.rpc.accounts import AccountPlaces
from shared.rpc.admission import AdmissionGate
from shared.rpc.context import CallContext, Metadata
from shared.rpc.grpcio import GrpcioTransport
from shared.rpc.health import HealthBoard
from shared.rpc.middleware import standard_chain
from shared.rpc.rates import Rates
from shared.rpc.routes import ServiceBinding, build_routes
from shared.rules.limits import LimitKind
from shared.tasks import TaskGroupTracker
from shared.tenancy import Mode, Principal, PrincipalKind

FILE: Final = "lictor/testing/v1/echo.proto"
SERVICE: Final = "lictor.testing.v1.EchoService"
Behaviour = Callable[[CreateLicenseRequest, CallContext], Awaitable[str]]


def _describe() -> ServiceDescriptor:
    file = descriptor_pb2.FileDescriptorProto(name=FILE, package="lictor.testing.v1", syntax="proto3")
    file.dependency.extend(
        ["lictor/license/v1/license_service.proto", "lictor/common/v1/options.proto", "google/protobuf/wrappers.proto"]
    )
    service = file.service.add(name="EchoService")
    rules = options_pb2.MethodRules
    for name, rule, streams_in, streams_out in (
        ("Read", rules(scope="echo:read"), False, False),
        ("Open", rules(), False, False),
        ("Hot", rules(hot=True), False, False),
        ("Write", rules(effect=options_pb2.Effect.RESTRICTING, scope="echo:write"), False, False),
        ("Expand", rules(), False, True),
        ("Collect", rules(), True, False),
        ("Chat", rules(), True, True),
    ):
        method = service.method.add(
            name=name,
            input_type=".lictor.license.v1.CreateLicenseRequest",
            output_type=".google.protobuf.StringValue",
            client_streaming=streams_in,
            server_streaming=streams_out,
        )
        method.options.Extensions[options_pb2.rules].CopyFrom(rule)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName(FILE).services_by_name["EchoService"]


ECHO: Final = _describe()


def as_is(raw: bytes) -> bytes:
    """The serializer and deserializer of calls in raw bytes."""
    return raw


async def answer_name(request: CreateLicenseRequest, _context: CallContext) -> str:
    """The behaviour until a test sets another: the request's display name."""
    return request.display_name


class EchoServicer:
    """Every kind of method, all answering what `behaviour` says."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = answer_name

    async def _answer(self, request: CreateLicenseRequest, context: CallContext) -> StringValue:
        return StringValue(value=await self.behaviour(request, context))

    async def Read(self, request: CreateLicenseRequest, context: CallContext) -> StringValue:
        return await self._answer(request, context)

    async def Open(self, request: CreateLicenseRequest, context: CallContext) -> StringValue:
        return await self._answer(request, context)

    async def Hot(self, request: CreateLicenseRequest, context: CallContext) -> StringValue:
        return await self._answer(request, context)

    async def Write(self, request: CreateLicenseRequest, context: CallContext) -> StringValue:
        return await self._answer(request, context)

    async def Expand(self, request: CreateLicenseRequest, context: CallContext) -> AsyncIterator[StringValue]:
        for letter in await self.behaviour(request, context):
            yield StringValue(value=letter)

    async def Collect(self, requests: AsyncIterator[CreateLicenseRequest], context: CallContext) -> StringValue:
        return StringValue(value=",".join([await self.behaviour(request, context) async for request in requests]))

    async def Chat(
        self, requests: AsyncIterator[CreateLicenseRequest], context: CallContext
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield await self._answer(request, context)


NO_RATE: Final = {LimitKind.MANAGEMENT_CALLS.value: 0}
"""The limits of an account that tests of other things call as fast as they can."""


class EchoAuthenticator:
    """`Bearer all` may do everything, `Bearer reader` may read; nobody else is known."""

    SCOPES: Final = {"Bearer all": {"echo:read", "echo:write"}, "Bearer reader": {"echo:read"}}

    async def authenticate(self, authorization: str | None, peer_identity: str, *, in_grace: bool = False) -> Principal:
        del peer_identity
        scopes = self.SCOPES.get(authorization or "")
        if scopes is None:
            raise DomainError(Reason.CREDENTIALS_INVALID, "the credential is absent or unknown")
        return Principal(PrincipalKind.SECRET_KEY, "acc_1", Mode.TEST, "key_1", frozenset(scopes), None, NO_RATE)


class NoWire:
    """The transport's side of a call that never reaches one."""

    def peer(self) -> str:
        return "test"

    def peer_identity(self) -> str:
        return ""

    async def send(self, message: bytes) -> None:
        raise AssertionError("nothing is streamed here")

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        raise AssertionError("nothing is sent here")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as a grpcio client sees it, taken apart."""

    code: grpc.StatusCode
    message: str
    status: status_pb2.Status
    info: error_details_pb2.ErrorInfo
    request_id: str
    violations: list[tuple[str, str]]
    """(field, reason) pairs."""
    retry_ms: int | None
    precondition: tuple[str, str] | None
    """(type, subject)."""

    @property
    def reason(self) -> str:
        return self.info.reason


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Parses `grpc-status-details-bin`; fails when there are not exactly one ErrorInfo and one RequestInfo."""
    trailers = dict(cast("Sequence[tuple[str, str | bytes]]", error.trailing_metadata()))
    raw = trailers.get("grpc-status-details-bin")
    assert isinstance(raw, bytes), f"no rich error, but {error.code()}: {error.details()}"
    status = status_pb2.Status.FromString(raw)
    assert (status.code, status.message) == (cast("tuple[int, str]", error.code().value)[0], error.details())

    def details(kind: type[Any]) -> list[Any]:
        found: list[Any] = []
        for packed in status.details:
            message = kind()
            if packed.Unpack(message):
                found.append(message)
        return found

    [info] = details(error_details_pb2.ErrorInfo)
    [request] = details(error_details_pb2.RequestInfo)
    bad = details(error_details_pb2.BadRequest)
    retry = details(error_details_pb2.RetryInfo)
    failed = details(error_details_pb2.PreconditionFailure)
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        status=status,
        info=info,
        request_id=request.request_id,
        violations=[(v.field, v.reason) for v in bad[0].field_violations] if bad else [],
        retry_ms=retry[0].retry_delay.ToMilliseconds() if retry else None,
        precondition=(failed[0].violations[0].type, failed[0].violations[0].subject) if failed else None,
    )


@dataclass(frozen=True, slots=True)
class Echo:
    """The running service and a channel to it."""

    servicer: EchoServicer
    gate: AdmissionGate
    metrics: Metrics
    tasks: TaskGroupTracker
    board: HealthBoard
    transport: GrpcioTransport
    channel: grpc.aio.Channel

    def start(
        self,
        method: str,
        request: CreateLicenseRequest | bytes | None = None,
        *,
        timeout_s: float | None = 10.0,
        metadata: Sequence[tuple[str, str]] = (("authorization", "Bearer all"),),
    ) -> grpc.aio.UnaryUnaryCall[bytes, StringValue]:
        """Begins a unary call; `method` is an RPC's name, or a whole path."""
        raw = request if isinstance(request, bytes) else (request or CreateLicenseRequest()).SerializeToString()
        path = method if method.startswith("/") else f"/{SERVICE}/{method}"
        call = self.channel.unary_unary(path, request_serializer=as_is, response_deserializer=StringValue.FromString)
        return call(raw, timeout=timeout_s, metadata=grpc.aio.Metadata(*metadata))

    async def call(
        self,
        method: str,
        request: CreateLicenseRequest | bytes | None = None,
        *,
        timeout_s: float | None = 10.0,
        metadata: Sequence[tuple[str, str]] = (("authorization", "Bearer all"),),
    ) -> str:
        """A unary call's answer."""
        return (await self.start(method, request, timeout_s=timeout_s, metadata=metadata)).value

    async def refused(
        self,
        method: str,
        request: CreateLicenseRequest | bytes | None = None,
        *,
        timeout_s: float | None = 10.0,
        metadata: Sequence[tuple[str, str]] = (("authorization", "Bearer all"),),
    ) -> Refusal:
        """A unary call's error."""
        try:
            answer = await self.call(method, request, timeout_s=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        raise AssertionError(f"the call was answered: {answer!r}")

    def count(self, method: str, code: str, reason: str = "", service: str = SERVICE) -> float:
        """How often a call ended so, by the metrics."""
        labels = {"service": service, "method": method, "code": code, "reason": reason}
        return self.metrics.registry.get_sample_value("lictor_calls_total", labels) or 0.0


@asynccontextmanager
async def echo_server(
    max_in_flight: int = 512, account_share_percent: int = 100, live: Callable[[], int] = lambda: 1
) -> AsyncGenerator[Echo]:
    """A server on a free port of 127.0.0.1 with the standard chain, and health beside the echo service."""
    servicer, gate, metrics, tasks = EchoServicer(), AdmissionGate(max_in_flight), Metrics(), TaskGroupTracker()
    metrics.watch_in_flight(lambda: gate.in_flight)
    board = HealthBoard([SERVICE])
    places = AccountPlaces(max_in_flight, account_share_percent)
    chain = standard_chain(gate, metrics, tasks, EchoAuthenticator(), places=places, rates=Rates(live))
    transport = GrpcioTransport(metrics)
    routes = build_routes([ServiceBinding(ECHO, servicer), board.binding], chain)
    port = await transport.start("127.0.0.1:0", routes)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Echo(servicer, gate, metrics, tasks, board, transport, channel)
    finally:
        await transport.drain(0)
        await tasks.drain(0)
