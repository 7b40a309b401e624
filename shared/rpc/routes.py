"""One table of methods, made from descriptors, that every transport serves. Nothing here knows a transport."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, Final, TypeAlias, assert_never, cast

from google.api import annotations_pb2  # pyright: ignore[reportMissingTypeStubs]
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from lictor.common.v1 import options_pb2

from shared.rpc.codec import decode, decoded
from shared.rpc.context import CallAbortedError, CallContext
from shared.rpc.internal import CALLERS
from shared.tenancy import Principal, PrincipalKind

OWN_PACKAGE: Final = "lictor."
_HTTP: Final = cast("Any", annotations_pb2).http
_PATH_VARIABLE: Final = re.compile(r"\{([^}=]+)")


class Kind(Enum):
    """Which sides of a method stream."""

    UNARY_UNARY = (False, False)
    UNARY_STREAM = (False, True)
    STREAM_UNARY = (True, False)
    STREAM_STREAM = (True, True)

    def __init__(self, streams_requests: bool, streams_responses: bool) -> None:
        self.streams_requests = streams_requests
        self.streams_responses = streams_responses


class Effect(IntEnum):
    """`lictor.common.v1.Effect.Kind`; NONE marks a read."""

    NONE = 0
    RESTRICTING = 1
    PERMISSIVE = 2
    OWN_RIGHT = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """The `lictor.common.v1.rules` of a method."""

    effect: Effect = Effect.NONE
    scope: str = ""
    """The scope that the caller needs; empty means that any principal will do."""
    idempotent: bool = False
    hot: bool = False
    also_serves: frozenset[PrincipalKind] = frozenset()
    """The kinds of callers that are let in besides those whose scope is enough."""
    endless: bool = False
    """Whether its stream of answers has no end of its own."""
    in_grace: bool = False
    """Whether calls may be answered from memory without a lease while the record is away."""
    may_evict: bool = False
    """Whether it takes somebody's right away at times, and waits for its effect then."""
    anonymous: bool = False
    """Whether it looks at no credential; its calls are counted by the caller's address."""
    internal: bool = False
    """Whether it is for other services of the deployment alone."""


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """What is known of a method before any call."""

    path: str
    """`/package.Service/Method`."""
    service: str
    """The service's full name."""
    name: str
    rules: Rules
    request_class: type[Message]
    response_class: type[Message]
    kind: Kind
    anonymous: bool
    """A standard service (health, reflection): no credential, no admission, no rules."""
    in_path: tuple[FieldDescriptor, ...] = ()
    """The fields that the path of the method's HTTP mapping names."""

    @property
    def mutates(self) -> bool:
        """Whether the method writes, so that it must never be cancelled half-way."""
        return self.rules.effect is not Effect.NONE


@dataclass(frozen=True, slots=True)
class ServiceBinding:
    """A service of the contract and the object that serves it: one async method per RPC, under the RPC's name."""

    descriptor: ServiceDescriptor
    servicer: object
    again: Mapping[str, Again] = field(default_factory=dict[str, "Again"])
    """By the names of its methods, what gives answers of theirs again; see `short`."""


Body: TypeAlias = bytes | AsyncIterator[bytes]
"""One serialized request, or a stream of them."""

Serving: TypeAlias = Coroutine[Any, Any, bytes | None]
Endpoint: TypeAlias = Callable[[CallContext, Body], Serving]
"""Serves a call. Answers the serialized response, or None when it streamed its responses through the context's wire.

A layer that only lets a call through or refuses it is a plain function, which refuses before there is anything to await:
each coroutine within another would be paid for by every call.

Out of a whole route come only `DomainError`, `CallAbortedError` and cancellation; `status_of` renders the first two."""

Middleware: TypeAlias = Callable[[MethodSpec, Endpoint], Endpoint]
"""Wraps a method's endpoint, once, when the table is built; returns it as it is where there is nothing to do."""


Again: TypeAlias = Callable[[Principal, bytes], bytes | None]
"""The serialized answer that a method would give to a principal's serialized request; None where it has to be called."""

Short: TypeAlias = Callable[[CallContext, bytes], bytes | None]
"""The answer to a call that a route would give, at once; None where the route has to be taken."""


@dataclass(frozen=True, slots=True)
class Route:
    """A method and everything that is done to serve it. A transport may ask `short` first, where there is one."""

    spec: MethodSpec
    call: Endpoint
    short: Short | None = None


def build_routes(
    bindings: Iterable[ServiceBinding],
    chain: Sequence[Middleware],
    shorten: Callable[[MethodSpec, Again], Short | None] = lambda _spec, _again: None,
) -> Mapping[str, Route]:
    """The routes of all bound services by path.

    Args:
        bindings: The services.
        chain: The middleware, outermost first.
        shorten: Makes the short way to the answers that a method gives again.

    Raises:
        ValueError: A method has no rules or no async handler, or a service is bound twice.
    """
    routes: dict[str, Route] = {}
    for binding in bindings:
        for method in binding.descriptor.methods:
            spec = method_spec(method)
            if spec.path in routes:
                raise ValueError(f"{spec.service} is bound twice")
            endpoint = _handler_endpoint(spec, binding.servicer)
            if endpoint is None:
                if spec.anonymous:
                    continue  # grpc's own async health servicer leaves List unserved
                raise ValueError(f"{type(binding.servicer).__name__} has no async handler for {spec.path}")
            for middleware in reversed(chain):
                endpoint = middleware(spec, endpoint)
            again = binding.again.get(spec.name)
            routes[spec.path] = Route(spec, endpoint, None if again is None else shorten(spec, again))
    return routes


def method_spec(method: MethodDescriptor) -> MethodSpec:
    """Reads a method's descriptor. Every method of ours must state its rules, even when they are empty.

    Raises:
        ValueError: It states none, or its path names something else than strings of its request.
    """
    service = method.containing_service
    options = method.GetOptions()
    anonymous = not service.full_name.startswith(OWN_PACKAGE)
    if not anonymous and not options.HasExtension(options_pb2.rules):
        raise ValueError(f"{method.full_name} states no lictor.common.v1.rules")
    stated = options.Extensions[options_pb2.rules]
    if stated.effect and method.client_streaming:
        # On grpcio a stream that was cut off looks as if it were complete: half of it would be written.
        raise ValueError(f"{method.full_name} writes what a stream of requests says; a write takes one message")
    also_serves = frozenset(PrincipalKind(options_pb2.CallerKind.Kind.Name(kind)) for kind in stated.also_serves)
    rules = Rules(
        Effect(stated.effect),
        stated.scope,
        stated.idempotent,
        stated.hot,
        also_serves,
        stated.endless,
        stated.in_grace,
        stated.may_evict,
        stated.anonymous,
        stated.internal,
    )
    if rules.anonymous and (rules.scope or rules.effect or rules.also_serves):
        raise ValueError(f"{method.full_name} takes no credential, and so it can neither write nor ask for a scope")
    path = f"/{service.full_name}/{method.name}"
    if rules.internal != (path in CALLERS) or (
        rules.internal and (rules.scope or rules.also_serves or rules.anonymous)
    ):
        raise ValueError(
            f"{method.full_name} is for services alone, or not: the table of internal methods says otherwise"
        )
    return MethodSpec(
        path=path,
        service=service.full_name,
        name=method.name,
        rules=Rules() if anonymous else rules,
        request_class=GetMessageClass(method.input_type),
        response_class=GetMessageClass(method.output_type),
        kind=Kind((method.client_streaming, method.server_streaming)),
        anonymous=anonymous,
        in_path=_fields_in_path(method),
    )


def _fields_in_path(method: MethodDescriptor) -> tuple[FieldDescriptor, ...]:
    rule = method.GetOptions().Extensions[_HTTP]
    pattern: str = getattr(rule, rule.WhichOneof("pattern") or "get")
    names = _PATH_VARIABLE.findall(pattern)
    found = tuple(method.input_type.fields_by_name[name] for name in names if name in method.input_type.fields_by_name)
    if len(found) != len(names) or any(field.type != FieldDescriptor.TYPE_STRING for field in found):
        raise ValueError(f"{method.full_name}: {pattern} names what is no string of the request itself")
    return found


_Answering: TypeAlias = Callable[[object, CallContext], Awaitable[Message | bytes]]
"""A handler answers a message, or one that it has serialized already."""
_Generating: TypeAlias = Callable[[object, CallContext], AsyncIterator[Message]]
_Writing: TypeAlias = Callable[[object, CallContext], Awaitable[None]]


def _handler_endpoint(spec: MethodSpec, servicer: object) -> Endpoint | None:
    """The innermost endpoint: decode, handle, encode. None when the servicer has no async handler."""
    handler: object = getattr(servicer, spec.name, None)
    match spec.kind:
        case Kind.UNARY_UNARY | Kind.STREAM_UNARY:
            if inspect.iscoroutinefunction(handler):
                return _answering(spec, cast("_Answering", handler))
        case Kind.UNARY_STREAM | Kind.STREAM_STREAM:
            if inspect.isasyncgenfunction(handler):
                return _generating(spec, cast("_Generating", handler))
            if inspect.iscoroutinefunction(handler):
                return _writing(spec, cast("_Writing", handler))
        case _ as never:
            assert_never(never)
    return None


def _answering(spec: MethodSpec, handler: _Answering) -> Endpoint:
    async def call(context: CallContext, body: Body) -> bytes:
        request = decoded(spec.request_class, body, spec.in_path) if isinstance(body, bytes) else _requests(spec, body)
        if request is None:
            request = await _request(spec, body)
        response = await handler(request, context)
        if context.code:
            raise CallAbortedError(context.code, context.details)
        return response if isinstance(response, bytes) else response.SerializeToString()

    return call


def _generating(spec: MethodSpec, handler: _Generating) -> Endpoint:
    async def call(context: CallContext, body: Body) -> None:
        async for response in handler(await _request(spec, body), context):
            await context.write(response)
        _raise_for_code(context)

    return call


def _writing(spec: MethodSpec, handler: _Writing) -> Endpoint:
    async def call(context: CallContext, body: Body) -> None:
        await handler(await _request(spec, body), context)
        _raise_for_code(context)

    return call


async def _request(spec: MethodSpec, body: Body) -> object:
    if isinstance(body, bytes):
        return await decode(spec.request_class, body, spec.in_path)
    return _requests(spec, body)


async def _requests(spec: MethodSpec, bodies: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for raw in bodies:
        yield await decode(spec.request_class, raw, spec.in_path)


def _raise_for_code(context: CallContext) -> None:
    if context.code:
        raise CallAbortedError(context.code, context.details)
