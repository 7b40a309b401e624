"""Runs a process's services from its first listener to its last answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client.registry import Collector

from shared.clock import Clock
from shared.crypto.service_tokens import ServiceTokens
from shared.garbage import keep_collections_short
from shared.observe.logging import get_logger
from shared.observe.metrics import Metrics
from shared.rpc.accounts import DEFAULT_SHARE_PERCENT, AccountPlaces
from shared.rpc.addresses import join_address, split_address
from shared.rpc.admission import DEFAULT_MAX_IN_FLIGHT, AdmissionGate
from shared.rpc.auth import Authenticator
from shared.rpc.client import InsideCaller
from shared.rpc.effects import EffectWaits
from shared.rpc.grpcio import GrpcioTransport
from shared.rpc.health import HEALTH, HealthBoard, reflection_binding
from shared.rpc.middleware import standard_chain
from shared.rpc.ops import OpsListener
from shared.rpc.rates import Rates
from shared.rpc.routes import Route, ServiceBinding, build_routes
from shared.rpc.short import Recognise, ShortWays
from shared.rpc.signals import signals
from shared.rpc.tls import TlsFiles
from shared.tasks import TaskGroupTracker

READY_POLL_S: Final = 0.1
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class App:
    """What a target serves."""

    bindings: Sequence[ServiceBinding]
    authenticator: Authenticator
    ready: Callable[[], bool]
    """Whether calls can be served; asked often, so it only looks at what is in memory."""
    live: Callable[[], int] = lambda: 1
    """How many processes serve the same, and share the rates; asked by each call that has a rate."""
    waits: EffectWaits | None = None
    """How long changes take to hold everywhere; None where nothing is answered from memory."""
    recognise: Recognise | None = None
    """Knows callers at once; None where each is looked up."""
    collectors: Sequence[Collector] = ()
    """What it counts beside its calls."""
    services: ServiceTokens | None = None
    """Knows the tokens of other services; None where no method is for those."""
    inside: Sequence[InsideCaller] = ()
    """Those who call methods of this process as other services do."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How a process listens and leaves. Addresses are `host:port`; port 0 takes any free one."""

    api_addr: str
    ops_addr: str
    ops_grpc_addr: str
    json_addr: str | None = None
    """Where JSON is taken, by transports that take it."""
    reflection: bool = False
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    account_share_percent: int = DEFAULT_SHARE_PERCENT
    """How much of `max_in_flight` one account may take."""
    lame_duck_s: float = 5.0
    """How long calls are still served after health said NOT_SERVING."""
    drain_s: float = 25.0
    """How long calls in flight, and then writes whose caller gave up, may take to end."""
    tls: TlsFiles | None = None
    """The certificate of the services' own listener; None for plain text. The ops listeners never have one."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The addresses in use, with real ports."""

    api_addr: str
    ops_addr: str
    ops_grpc_addr: str
    json_addr: str | None = None


class Lifecycle:
    """What the process was told: to leave, and to hurry."""

    def __init__(self, stop: asyncio.Event | None = None) -> None:
        self.stop = stop or asyncio.Event()
        self.hurry = asyncio.Event()

    def ask(self) -> None:
        """Tells it to leave; when it was told already, to hurry."""
        (self.hurry if self.stop.is_set() else self.stop).set()

    @property
    def leaving(self) -> bool:
        return self.stop.is_set()


class Transport(Protocol):
    """What takes the services' calls."""

    json_port: int | None
    """Where JSON over HTTP is taken; None for nowhere. Known once `start` has returned."""

    async def start(self, address: str, routes: Mapping[str, Route], tls: TlsFiles | None) -> int:
        """Listens on `host:port` and returns the port."""
        ...

    async def drain(self, grace_s: float, refuse: Callable[[], None] = ...) -> None:
        """Leaves: closes the listener, sends connections away, and answers what still comes until they are gone.

        Streams that would last for ever (a health watch) end with DRAINING at once.

        Args:
            grace_s: How long that may take; calls that are in flight then are cancelled.
            refuse: Called before that: from then on new calls are refused.
        """
        ...


class Host(Protocol):
    """The process around the services."""

    name: str
    """The transport's name."""

    def transport(self, metrics: Metrics) -> Transport:
        """Makes the transport of the services' own listener."""
        ...

    def told(self, life: Lifecycle) -> AbstractAsyncContextManager[None]:
        """Tells `life` what the process is told, while the block runs."""
        ...

    def up(self, bound: Bound, services: Sequence[str]) -> None:
        """Hears once where the process listens and what it serves."""
        ...

    def ready(self, ready: bool) -> None:
        """Hears each change of whether calls can be served."""
        ...


class GrpcioHost:
    """A process of our own: `grpc.aio` listens, signals tell."""

    name = "grpcio"

    def transport(self, metrics: Metrics) -> Transport:
        return GrpcioTransport(metrics)

    @asynccontextmanager
    async def told(self, life: Lifecycle) -> AsyncGenerator[None]:
        with signals(life.ask):
            yield

    def up(self, bound: Bound, services: Sequence[str]) -> None:
        """Nobody asks."""

    def ready(self, ready: bool) -> None:
        """Nobody asks."""


async def serve(
    app: App,
    settings: ServeSettings,
    clock: Clock,
    *,
    on_ready: Callable[[Bound], None] | None = None,
    stop: asyncio.Event | None = None,
    host: Host | None = None,
) -> None:
    """Serves until SIGTERM, SIGINT or `stop`, then leaves in order and returns.

    Leaving: health says NOT_SERVING; calls are still served for the lame duck; connections are sent away, and calls
    are served until they are gone; writes whose caller gave up finish; the ops listeners close. A second signal skips
    the lame duck.

    Args:
        app: The services.
        settings: Addresses and times.
        clock: For the start time in the metrics.
        on_ready: Told the addresses once every listener is up and the app is ready.
        stop: Ends the serving, as a signal does.
        host: What listens for calls and for signals; `grpc.aio` in this process unless named.

    Raises:
        RuntimeError, OSError: An address cannot be bound.
        TlsError: The certificate cannot be used.
    """
    life, host = Lifecycle(stop), host or GrpcioHost()
    metrics, tasks, gate = Metrics(), TaskGroupTracker(), AdmissionGate(settings.max_in_flight)
    metrics.watch_in_flight(lambda: gate.in_flight)
    for collector in app.collectors:
        metrics.registry.register(collector)
    metrics.describe_process(clock.now().timestamp(), transport=host.name)

    names = [binding.descriptor.full_name for binding in app.bindings]
    board = HealthBoard(names)
    await board.set_serving(False)
    bindings = [*app.bindings, board.binding]
    if settings.reflection:
        bindings.append(reflection_binding([*names, HEALTH.full_name]))
    places = AccountPlaces(settings.max_in_flight, settings.account_share_percent)
    chain = standard_chain(
        gate, metrics, tasks, app.authenticator, places=places, rates=Rates(app.live), waits=app.waits,
        services=app.services,
    )  # fmt: skip

    async def exposition() -> tuple[bytes, str]:
        return metrics.exposition()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host.told(life))
        api, ops, ops_grpc = host.transport(metrics), OpsListener(exposition), GrpcioTransport(metrics)
        stack.push_async_callback(ops_grpc.drain, 0.0)
        stack.push_async_callback(ops.close)
        stack.push_async_callback(tasks.drain, settings.drain_s)
        stack.push_async_callback(api.drain, settings.drain_s, gate.drain)
        shorten = ShortWays(gate, metrics, places, app.recognise).make
        routes = build_routes(bindings, chain, shorten)
        for caller in app.inside:
            caller.serve(routes)
        api_port = await api.start(settings.api_addr, routes, settings.tls)
        bound = Bound(
            api_addr=_at(settings.api_addr, api_port),
            json_addr=_at(settings.json_addr, api.json_port) if settings.json_addr and api.json_port else None,
            ops_addr=_at(
                settings.ops_addr, await ops.start(settings.ops_addr, lambda: app.ready() and not life.leaving)
            ),
            ops_grpc_addr=_at(
                settings.ops_grpc_addr,
                await ops_grpc.start(settings.ops_grpc_addr, build_routes([board.binding], chain)),
            ),
        )
        stack.callback(keep_collections_short())
        host.up(bound, names)
        _log.info(
            "listening", api=bound.api_addr, json=bound.json_addr, ops=bound.ops_addr, ops_grpc=bound.ops_grpc_addr
        )

        await _serve_until_stopped(app, board, life, host, lambda: on_ready(bound) if on_ready else None)

        _log.info("leaving", lame_duck_s=settings.lame_duck_s, in_flight=gate.in_flight)
        await board.leave()
        host.ready(False)
        with suppress(TimeoutError):
            await asyncio.wait_for(life.hurry.wait(), settings.lame_duck_s)
    _log.info("left")


async def _serve_until_stopped(
    app: App, board: HealthBoard, life: Lifecycle, host: Host, announce: Callable[[], None]
) -> None:
    """Keeps health equal to `app.ready()` until the process is told to leave."""
    serving = announced = False
    while not life.leaving:
        if app.ready() is not serving:
            serving = not serving
            await board.set_serving(serving)
            host.ready(serving)
        if serving and not announced:
            announced = True
            announce()
        with suppress(TimeoutError):
            await asyncio.wait_for(life.stop.wait(), READY_POLL_S)


def _at(address: str, port: int) -> str:
    return join_address(split_address(address)[0], port)
