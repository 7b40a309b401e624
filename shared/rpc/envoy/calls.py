"""gRPC as an ASGI application over a route table: what runs inside Envoy for each call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, MutableMapping
from dataclasses import replace
from time import monotonic
from typing import Any, TypeAlias

from shared.errors import Code, DomainError, Reason
from shared.observe.metrics import UNKNOWN, Metrics
from shared.rpc.admission import draining
from shared.rpc.context import CallAbortedError, CallContext
from shared.rpc.deadlines import too_short
from shared.rpc.envoy.headers import NO_HEADERS, RequestHeaders
from shared.rpc.envoy.request import Receive, Request
from shared.rpc.envoy.watch import Watch
from shared.rpc.envoy.wire import AsgiWire, Send
from shared.rpc.live import LiveCalls
from shared.rpc.routes import Route
from shared.rpc.status import status_of
from shared.rpc.stepping import resume

Scope: TypeAlias = MutableMapping[str, Any]


class EnvoyCalls:
    """Serves the calls of a route table; an ASGI application for the scope `http`.

    Args:
        live: Counts the calls.
        metrics: Where calls to unknown methods are counted; routes count themselves.
    """

    def __init__(self, live: LiveCalls, metrics: Metrics) -> None:
        self._live = live
        self._unknown = metrics.recorder(UNKNOWN, UNKNOWN)
        self._routes: dict[str, Route] = {}
        self._handling: set[asyncio.Task[Any]] = set()
        self._meanwhile: set[asyncio.Task[None]] = set()
        self._cutting = False
        self._watch = Watch()

    def serve(self, routes: Mapping[str, Route]) -> None:
        """Sets the table."""
        self._routes = {path: replace(route, call=self._live.endpoint(route)) for path, route in routes.items()}

    def cut(self) -> None:
        """Cancels the handlers that still run; their callers read DRAINING."""
        self._cutting = True
        for task in tuple(self._handling):
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = AsgiWire(scope.get("client"), send, scope["headers"])
        fault: CallAbortedError | None = None
        try:
            headers = RequestHeaders.read(scope["headers"])
        except CallAbortedError as error:
            headers, fault = NO_HEADERS, error
        if scope["method"] != "POST" or not headers.is_grpc:
            await wire.refuse_http(405 if scope["method"] != "POST" else 415)
            return
        path: str = scope["raw_path"].decode("latin-1")
        served = self._routes.get(path)
        context = CallContext(
            method=path,
            service=UNKNOWN if served is None else served.spec.service,
            wire=wire,
            metadata=headers.metadata,
            time_left_s=headers.time_left_s,
        )
        self._live.begin()
        try:
            if fault is not None or served is None or not headers.takes_trailers:
                raise fault or self._not_served(path, headers)
            request = Request(receive, wire, headers.encoding, self._watch)
            if served.spec.kind.streams_requests:
                answering = self._waited(served.call(context, request.messages()), request)
            else:
                # Read and answered in this one frame, where that is possible: one more costs as much as a layer of the chain.
                try:
                    first = await request.awaited(context.time_left_s, lambda: self._refuse_late(wire, context))
                    body = request.whole(first)
                    if body is None:
                        body = await request.in_parts(first)
                finally:
                    request.arrived()
                if wire.started:
                    raise wire.left()  # it came too late, and was answered
                answering = self._begun(served, request, context, body)
            answer = answering if answering is None or isinstance(answering, bytes) else await answering
            await wire.finish(answer, context.trailing)
        except (DomainError, CallAbortedError) as error:
            await wire.refuse(status_of(error, context.call_id, path), context.trailing)
        except asyncio.CancelledError:
            context.mark_cancelled()
            if not await self._ends_here(wire, context):
                raise
        finally:
            self._live.end()
            context.finish()

    def _begun(
        self, served: Route, request: Request, context: CallContext, body: bytes
    ) -> bytes | Awaitable[bytes | None] | None:
        """What the call ends with where it ends at once, else what is left to be waited for."""
        if served.short is not None and (known := served.short(context, body)) is not None:
            return known
        running = served.call(context, body)
        try:
            waiting_for = running.send(None)
        except StopIteration as answered:
            return answered.value
        request.look_now_and_then()
        return self._waited(resume(running, waiting_for), request)

    async def _waited(self, answering: Awaitable[bytes | None], request: Request) -> bytes | None:
        task = self._guarded(request)
        try:
            return await answering
        finally:
            self._handling.discard(task)
            request.release()

    def _guarded(self, request: Request) -> asyncio.Task[Any]:
        """Has the current task, which begins to wait, cancelled when its caller leaves or the process does."""
        task = asyncio.current_task()
        assert task is not None
        request.guard(task)
        self._handling.add(task)
        return task

    def _refuse_late(self, wire: AsgiWire, context: CallContext) -> None:
        """Answers in the place of a call whose request does not come; the call then reads that it is over."""
        had_ms = round((monotonic() - context.arrived) * 1000)
        error = too_short(had_ms, f"the request did not arrive within the {had_ms} ms that the call had")

        async def refuse() -> None:
            if not wire.started:  # the request may come in the very moment in which its time is over
                await wire.refuse(status_of(error, context.call_id, context.method), ())

        task = asyncio.create_task(refuse())
        self._meanwhile.add(task)
        task.add_done_callback(self._meanwhile.discard)

    async def _ends_here(self, wire: AsgiWire, context: CallContext) -> bool:
        """Whether a cancellation ends this call only, and not the process; if so, the call is over."""
        if not wire.gone and not self._cutting:
            return False
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if not wire.gone:
            await wire.refuse(status_of(draining(), context.call_id, context.method), context.trailing)
        return True

    def _not_served(self, path: str, headers: RequestHeaders) -> DomainError | CallAbortedError:
        if not headers.takes_trailers:
            return CallAbortedError(Code.INTERNAL, "the request lacks `te: trailers`: no status could follow an answer")
        error = DomainError(Reason.METHOD_UNKNOWN, "this process serves no such method", metadata={"method": path})
        self._unknown.refused(error.code.name, error.reason.value)
        return error
