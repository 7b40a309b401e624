"""The portable transport: `grpc.aio` over a route table. Messages pass as raw bytes; all else happens in the routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Never, TypeAlias, assert_never, cast

import grpc
import grpc.aio

from shared.errors import DomainError, Reason
from shared.observe.metrics import UNKNOWN, Metrics
from shared.rpc.ages import CONNECTION_AGE_GRACE_S, CONNECTION_AGE_S
from shared.rpc.context import CallAbortedError, CallContext, Metadata
from shared.rpc.handshakes import Handshakes
from shared.rpc.live import LiveCalls
from shared.rpc.routes import Body, Kind, Route
from shared.rpc.status import DETAILS_KEY, status_of
from shared.rpc.tls import TlsFiles, TlsMaterial, certificate_uris, peer_identity

ServicerContext: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_concurrent_streams", 256),
    # Counts calls that their client has seen the end of, and so refuses those of a client that keeps to the limit.
    ("grpc.http.overload_protection", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),  # above our own limit, so that our own answer names it
    ("grpc.max_metadata_size", 32 * 1024),  # likewise
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.max_connection_age_grace_ms", int(CONNECTION_AGE_GRACE_S * 1000)),
    ("grpc.max_connection_idle_ms", 900_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # without it an answer may take a minute, whatever the one above says
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)
PEER_CERTIFICATE: Final = "x509_pem_cert"
"""What grpc calls the caller's certificate. It has a word for its URIs too (`peer_uri`), but cuts them off at a NUL."""
UNWIND_S: Final = 1.0
"""How long cancelled handlers get to clean up."""

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class _GrpcioWire:
    """One call's way out through grpc."""

    __slots__ = ("_certificate", "_context", "_peer")

    def __init__(self, context: ServicerContext) -> None:
        self._context = context
        # Read now: a write may outlive its call, and grpc crashes the process when it is asked afterwards.
        self._peer = context.peer()
        self._certificate = context.auth_context().get(PEER_CERTIFICATE)

    def peer(self) -> str:
        return self._peer

    def peer_identity(self) -> str:
        # There is none without TLS, nor where none was asked for. One that was shown was verified, or there would be no
        # connection.
        shown = self._certificate
        return "" if shown is None else peer_identity(certificate_uris(next(iter(shown))))

    async def send(self, message: bytes) -> None:
        with _caller_there():
            await self._context.write(message)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        with _caller_there():
            await self._context.send_initial_metadata(metadata)


@contextmanager
def _caller_there() -> Generator[None]:
    """What grpc raises when its caller has left ends the handler like a cancellation, which may follow a moment later."""
    try:
        yield
    except grpc.aio.InternalError:
        raise asyncio.CancelledError("the caller has left") from None


class GrpcioTransport(grpc.GenericRpcHandler):
    """Serves a route table on one address.

    Args:
        metrics: Where calls to unknown methods are counted; routes count themselves.
        connection_age_s: How old a connection becomes before its caller is sent away.
        share_port: Whether other processes of this deployment listen on the same port.
    """

    def __init__(
        self, metrics: Metrics, connection_age_s: float = CONNECTION_AGE_S, *, share_port: bool = False
    ) -> None:
        # Alone on its port a process wants it to itself: a second one must fail instead of taking half of the connections.
        self._options = (
            *OPTIONS,
            ("grpc.max_connection_age_ms", int(connection_age_s * 1000)),
            ("grpc.so_reuseport", int(share_port)),
        )
        self._unknown = metrics.recorder(UNKNOWN, UNKNOWN)
        self._handlers: dict[str, Handler] = {}
        self._server: grpc.aio.Server | None = None
        self._live = LiveCalls()
        self.json_port: int | None = None  # grpcio speaks no JSON

    async def start(self, address: str, routes: Mapping[str, Route], tls: TlsFiles | None = None) -> int:
        """Listens on `host:port` (port 0: any free one) and returns the port. Without `tls` in plain text.

        Raises:
            RuntimeError: The address cannot be bound.
            TlsError: The files of `tls` cannot be used.
        """
        self._handlers = {path: self._route_handler(route) for path, route in routes.items()}
        self._server = grpc.aio.server(options=self._options)
        self._server.add_generic_rpc_handlers((self,))
        if tls is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, _credentials(tls))
        await self._server.start()
        return port

    async def drain(self, grace_s: float, refuse: Callable[[], None] = lambda: None) -> None:
        """See `Transport`. From the first moment on grpc itself cancels a call that arrives, before its client has read
        GOAWAY (its issue 41785): the lame duck is there so that clients have left before."""
        # grpc crashes when a server is stopped twice at a time, so the first to come takes it.
        server, self._server = self._server, None
        if server is None:
            return
        self._live.leave()
        await server.stop(grace_s)
        refuse()
        # stop() does not wait for handlers whose call it cancelled.
        await self._live.idle(UNWIND_S)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """The handler of a path. grpc calls this for each call."""
        path = handler_call_details.method
        return self._handlers.get(path) or self._unknown_handler(path)

    def _route_handler(self, route: Route) -> Handler:
        spec = route.spec
        call = self._live.endpoint(route)

        async def handle(body: Body, grpc_context: ServicerContext) -> bytes | None:
            context = self._open(spec.path, spec.service, grpc_context)
            try:
                answer = await call(context, body)
            except (DomainError, CallAbortedError) as error:
                await _abort(grpc_context, context, error)
            except asyncio.CancelledError:
                context.mark_cancelled()
                raise
            if context.trailing:
                grpc_context.set_trailing_metadata(context.trailing)
            return answer

        match spec.kind:
            case Kind.UNARY_UNARY:
                return grpc.unary_unary_rpc_method_handler(handle)
            case Kind.UNARY_STREAM:
                return grpc.unary_stream_rpc_method_handler(handle)
            case Kind.STREAM_UNARY:
                return grpc.stream_unary_rpc_method_handler(handle)
            case Kind.STREAM_STREAM:
                return grpc.stream_stream_rpc_method_handler(handle)
            case _ as never:
                assert_never(never)

    def _unknown_handler(self, path: str) -> Handler:
        """Streams both ways on paper, so that it may answer before it has read anything, whatever the caller sends."""

        async def handle(_body: Body, grpc_context: ServicerContext) -> None:
            context = self._open(path, UNKNOWN, grpc_context)
            error = DomainError(Reason.METHOD_UNKNOWN, "this process serves no such method", metadata={"method": path})
            self._unknown.refused(error.code.name, error.reason.value)
            await _abort(grpc_context, context, error)

        return grpc.stream_stream_rpc_method_handler(handle)

    def _open(self, path: str, service: str, grpc_context: ServicerContext) -> CallContext:
        context = CallContext(
            method=path,
            service=service,
            wire=_GrpcioWire(grpc_context),
            metadata=cast("Metadata", grpc_context.invocation_metadata() or ()),
            time_left_s=grpc_context.time_remaining(),
        )
        self._live.begin()

        def over(ctx: ServicerContext) -> None:
            self._live.end()
            context.finish()

        cast("Any", grpc_context).add_done_callback(over)  # the stub takes no function
        return context


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Credentials of a server that looks at the files before each handshake, in a thread of grpc's."""
    handshakes = Handshakes(tls)

    def replaced() -> grpc.ServerCertificateConfiguration | None:
        material = handshakes.replaced()
        return None if material is None else _configuration(material)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(handshakes.material),
        cast("Callable[[], grpc.ServerCertificateConfiguration]", replaced),  # the stub does not know of None
        require_client_authentication=tls.client_ca_file is not None,
    )


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.client_ca)


async def _abort(grpc_context: ServicerContext, context: CallContext, error: DomainError | CallAbortedError) -> Never:
    """The one place that aborts a call."""
    status = status_of(error, context.call_id, context.method)
    await grpc_context.abort(
        _CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        status.message,
        (*context.trailing, (DETAILS_KEY, status.SerializeToString())),
    )
