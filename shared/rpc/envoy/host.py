"""The transport inside Envoy: Envoy listens and speaks HTTP/2, this Python serves the calls.

Life there: Envoy loads this module and waits in the ASGI lifespan until the services are built and their routes set;
then it listens, and the process that started it (`parent`) says on which port. From that process comes the word
to leave, too: Envoy itself knows no other answer to a signal than to end at once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from threading import get_ident
from typing import Any

from shared.observe.logging import get_logger
from shared.observe.metrics import Metrics
from shared.rpc.control import CONTROL_FOLDER, Control, Word
from shared.rpc.envoy.across import serve_across
from shared.rpc.envoy.calls import EnvoyCalls, Scope
from shared.rpc.envoy.request import Receive
from shared.rpc.envoy.wire import Send
from shared.rpc.live import LiveCalls
from shared.rpc.routes import Route
from shared.rpc.runtime import Lifecycle
from shared.rpc.tls import TlsFiles
from shared.rpc.worker import Telling, open_control, report

UNWIND_S = 1.0
"""How long cancelled handlers get to clean up."""

_log = get_logger(__name__)


class EnvoyHost(Telling):
    """The process around the services is an Envoy. Told by `Control`."""

    name = "envoy"

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        self.calls: EnvoyCalls | None = None
        self.set = asyncio.Event()
        """Routes are set, so that Envoy may begin to listen."""
        self.port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Where Envoy listens."""
        self.json_port: int | None = None
        """Where it takes JSON, if it does; known with `port`."""
        self.gone = asyncio.Event()
        """After `close_listener`: no connection is left."""
        self.ending = False
        """The process ends whatever is in flight: there is nothing to wait for."""

    def transport(self, metrics: Metrics) -> EnvoyTransport:
        return EnvoyTransport(self, metrics)

    @asynccontextmanager
    async def told(self, life: Lifecycle) -> AsyncGenerator[None]:
        listening = asyncio.create_task(self._listen(life), name="control")
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def _listen(self, life: Lifecycle) -> None:
        while (heard := await self._control.hear()) is not None:
            word, more = heard
            if word is Word.LISTENING and not self.port.done():
                port, _, json_port = more.partition(" ")
                self.json_port = int(json_port) if json_port else None
                self.port.set_result(int(port))
            elif word is Word.STOP:
                life.ask()
            elif word is Word.GONE:
                self.gone.set()
        _log.error("the process that started Envoy is gone; leaving")
        shutil.rmtree(os.environ[CONTROL_FOLDER], ignore_errors=True)
        os.kill(os.getpid(), signal.SIGTERM)

    def close_listener(self) -> None:
        """Asks for no more connections, and for those that are there to be sent away."""
        self._control.say(Word.DRAIN)


class EnvoyTransport:
    """Serves a route table on the listener that Envoy opens."""

    def __init__(self, host: EnvoyHost, metrics: Metrics) -> None:
        self._host = host
        self._live = LiveCalls()
        self._calls = EnvoyCalls(self._live, metrics)
        self.json_port: int | None = None

    async def start(self, address: str, routes: Mapping[str, Route], tls: TlsFiles | None) -> int:
        """Sets the routes, waits until Envoy listens and returns the port. The rest is in Envoy's configuration."""
        del address, tls
        self._calls.serve(routes)
        self._host.calls = self._calls
        self._host.set.set()
        port = await self._host.port
        self.json_port = self._host.json_port
        return port

    async def drain(self, grace_s: float, refuse: Callable[[], None] = lambda: None) -> None:
        """See `Transport`. A client that honours GOAWAY loses no call: until its connection is gone, calls are answered."""
        self._live.leave()
        self._host.close_listener()
        gone = await self._gone(0 if self._host.ending else grace_s)
        refuse()
        if not await self._live.idle(0):
            self._calls.cut()
            await self._live.idle(UNWIND_S)
        if not gone and not self._host.ending:
            await self._gone(UNWIND_S)  # for the last answers to be on their way

    async def _gone(self, within_s: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._host.gone.wait(), within_s)
        return self._host.gone.is_set()


class EnvoyApplication:
    """What Envoy loads: builds and serves the services within the ASGI lifespan, and hands them their calls.

    Args:
        serve: Builds the services and serves them under a host until they are told to leave.
        expected: Errors whose message is enough.
    """

    _asgi_single_callable = True
    """For pyvoy: it takes what is no coroutine function for an application of ASGI 2."""

    def __init__(self, serve: Callable[[EnvoyHost], Awaitable[None]], expected: tuple[type[Exception], ...]) -> None:
        self._serve = serve
        self._expected = expected
        self._calls: EnvoyCalls | None = None
        self._home: asyncio.AbstractEventLoop | None = None
        """The loop that everything belongs to: the one of the listener for gRPC."""
        self._home_thread = 0
        """Its thread. To ask which loop runs costs Python 3.11 a call of the system."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        # A coroutine of its own around that of the call would be paid for by every call.
        if (calls := self._calls) is not None and scope["type"] == "http":
            home = self._home
            if home is None or self._home_thread == get_ident():
                return calls(scope, receive, send)
            return serve_across(calls, home, scope, receive, send)
        return self._live(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return
        await receive()
        self._home, self._home_thread = asyncio.get_running_loop(), get_ident()
        control = await open_control()
        host = EnvoyHost(control)
        serving = asyncio.create_task(report(self._serve(host), control, self._expected), name="serving")
        begun = asyncio.create_task(host.set.wait())
        await asyncio.wait({serving, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if host.calls is None:
            await send({"type": "lifespan.startup.failed", "message": "the services did not start"})
            return
        self._calls = host.calls
        await send({"type": "lifespan.startup.complete"})
        await receive()
        host.ending = True
        serving.cancel()
        await asyncio.wait({serving})
        control.close()
        await send({"type": "lifespan.shutdown.complete"})
