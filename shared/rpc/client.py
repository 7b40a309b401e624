"""How one service calls another: on behalf of the call that it serves, within the time that that has left.

Each call carries a token for itself alone, the trace of the call that it serves, and a deadline with something kept back for
the way home. A call that was not answered for want of the other service is tried again while there is time; that is safe,
since it carries a `request_id` where it writes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from random import uniform
from typing import Final, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from shared.crypto.service_tokens import ServiceCall, ServiceTokens
from shared.errors import DOMAIN, Code, DomainError, FieldViolation, Reason
from shared.rpc.context import CallContext, Metadata
from shared.rpc.deadlines import REQUIRED_MS, SHAVE_S, too_short
from shared.rpc.internal import SCHEME, audience_of
from shared.rpc.routes import Route
from shared.rpc.status import DETAILS_KEY

TRIES: Final = 3
FIRST_WAIT_S: Final = 0.05
_RETRY_AFTER_MS: Final = 250

T = TypeVar("T", bound=Message)


class ServiceCaller(Protocol):
    """Calls methods of other services, wherever those run."""

    async def call(self, method: str, request: Message, answer: type[T], context: CallContext) -> T:
        """The answer of a method.

        Args:
            method: Its path; one of `shared.rpc.internal.CALLERS`.
            request: What is asked.
            answer: The class of the answer.
            context: The call that this one serves: its account, mode, time left and trace go along.

        Raises:
            DomainError: What the other service refuses it with; RECORD_UNREACHABLE where that is away; DEADLINE_TOO_SHORT.
        """
        ...


class _Caller(ABC):
    """What both ways of calling have in common."""

    def __init__(self, tokens: ServiceTokens, issuer: str) -> None:
        self._tokens = tokens
        self._issuer = issuer

    async def call(self, method: str, request: Message, answer: type[T], context: CallContext) -> T:
        body = request.SerializeToString()
        for tried in range(1, TRIES + 1):
            left_s = context.remaining_s() - SHAVE_S
            if left_s * 1000 < REQUIRED_MS:
                raise too_short(REQUIRED_MS, "too little time was left to ask another service")
            try:
                raw = await self._send(method, body, left_s, self._metadata(method, context))
                return answer.FromString(raw)
            except DomainError as error:
                if error.code in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}:
                    # The fault is between the services: the caller's own credential was good.
                    raise RuntimeError(f"{method} does not take a token of the service {self._issuer}") from error
                wait_s = FIRST_WAIT_S * 2 ** (tried - 1) * uniform(0.5, 1.0)  # noqa: S311 - only spreads
                if error.code is not Code.UNAVAILABLE or tried == TRIES or context.remaining_s() <= wait_s + SHAVE_S:
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("the last try answers or raises")

    def _metadata(self, method: str, context: CallContext) -> Metadata:
        call = ServiceCall(self._issuer, audience_of(method), context.principal.tenant, method)
        trace = [(key, value) for key, value in context.invocation_metadata() if key == "traceparent"]
        return (("authorization", f"{SCHEME} {self._tokens.mint(call)}"), *trace)

    @abstractmethod
    async def _send(self, method: str, body: bytes, left_s: float, metadata: Metadata) -> bytes:
        """One try: the bytes of the answer, or DomainError as the other service raised it."""


class InsideCaller(_Caller):
    """Calls the routes of its own process, through all that is around them; `serve` says which those are."""

    def __init__(self, tokens: ServiceTokens, issuer: str) -> None:
        super().__init__(tokens, issuer)
        self._routes: Mapping[str, Route] = {}

    def serve(self, routes: Mapping[str, Route]) -> None:
        """From now on calls go to these routes."""
        self._routes = routes

    async def _send(self, method: str, body: bytes, left_s: float, metadata: Metadata) -> bytes:
        route = self._routes[method]
        # In a task of its own: what the call does to the context of its task is not the caller's.
        return await asyncio.create_task(_answered(route, body, left_s, metadata), name=f"inside {method}")


async def _answered(route: Route, body: bytes, left_s: float, metadata: Metadata) -> bytes:
    context = CallContext(
        method=route.spec.path, service=route.spec.service, wire=_NoWire(), metadata=metadata, time_left_s=left_s
    )
    try:
        raw = await route.call(context, body)
        assert raw is not None, "the methods of services answer once"
        return raw
    finally:
        context.finish()


class ChannelCaller(_Caller):
    """Calls another process. `channel` is the owner's to close."""

    def __init__(self, channel: grpc.aio.Channel, tokens: ServiceTokens, issuer: str) -> None:
        super().__init__(tokens, issuer)
        self._channel = channel

    async def _send(self, method: str, body: bytes, left_s: float, metadata: Metadata) -> bytes:
        send = cast("Callable[..., Awaitable[bytes]]", self._channel.unary_unary(method))
        try:
            return await send(body, timeout=left_s, metadata=grpc.aio.Metadata(*metadata))
        except grpc.aio.AioRpcError as fault:
            raise _refusal(fault) from fault


def _refusal(fault: grpc.aio.AioRpcError) -> DomainError:
    """The refusal as it was raised over there; what never came from there is the other service being away."""
    trailers: Mapping[str, object] = dict(fault.trailing_metadata() or ())
    raw = trailers.get(DETAILS_KEY)
    status = status_pb2.Status.FromString(raw) if isinstance(raw, bytes) else status_pb2.Status()
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_ms: int | None = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_ms = int(retry.retry_delay.ToMilliseconds())
        else:
            _ = detail.Unpack(info) or detail.Unpack(bad)
    if info.domain == DOMAIN and info.reason in {reason.value for reason in Reason}:
        violations = tuple(FieldViolation(v.field, v.reason, v.description) for v in bad.field_violations)
        return DomainError(
            Reason(info.reason), status.message, metadata=dict(info.metadata), violations=violations,
            retry_after_ms=retry_ms,
        )  # fmt: skip
    match fault.code():
        case grpc.StatusCode.UNAVAILABLE:
            return DomainError(
                Reason.RECORD_UNREACHABLE, "another service that the call needs is away", retry_after_ms=_RETRY_AFTER_MS
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return too_short(REQUIRED_MS, "another service that the call needs did not answer in time")
        case code:
            raise RuntimeError(f"another service ended a call with {code.name} and no reason") from fault


class _NoWire:
    """The transport's side of a call that stays in its process."""

    def peer(self) -> str:
        return "inside"

    def peer_identity(self) -> str:
        return ""

    async def send(self, message: bytes) -> None:
        raise AssertionError("the methods of services stream nothing")

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Nobody reads them."""
