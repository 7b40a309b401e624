"""A process of the license service, or of others, without a transport: its routes, called as a transport calls them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from services.license import app as license_app
from services.suite_settings import SuiteSettings
from shared.clock import Clock
from shared.observe.metrics import Metrics
from shared.rpc.accounts import AccountPlaces
from shared.rpc.admission import AdmissionGate
from shared.rpc.auth import Authenticator
from shared.rpc.context import CallContext
from shared.rpc.middleware import standard_chain
from shared.rpc.rates import Rates
from shared.rpc.routes import Route, build_routes
from shared.rpc.runtime import App
from shared.tasks import TaskGroupTracker
from tests.helpers.echo import NoWire

Build = Callable[[SuiteSettings, Clock], AbstractAsyncContextManager[App]]
"""Opens what a process stands on."""


class CertifiedWire(NoWire):
    """The transport's side of a call whose caller has shown a certificate; empty for one that has not."""

    def __init__(self, peer_identity: str) -> None:
        self._peer_identity = peer_identity

    def peer_identity(self) -> str:
        return self._peer_identity


@dataclass(frozen=True, repr=False)
class Chained:
    """Who callers are, and the whole chain of each method. Calls that take rights away do not wait."""

    authenticator: Authenticator
    routes: Mapping[str, Route]

    async def call(self, path: str, raw: bytes, authorization: str | None, peer_identity: str = "") -> bytes:
        """One unary call; DomainError where it is refused."""
        metadata = () if authorization is None else (("authorization", authorization),)
        service = path.split("/")[1]
        context = CallContext(
            method=path, service=service, wire=CertifiedWire(peer_identity), metadata=metadata, time_left_s=10.0
        )
        answer = await self.routes[path].call(context, raw)
        assert answer is not None
        return answer


@asynccontextmanager
async def chained(settings: SuiteSettings, clock: Clock, build: Build = license_app.build) -> AsyncGenerator[Chained]:
    """A process that has just started."""
    async with build(settings, clock) as app:
        chain = standard_chain(
            AdmissionGate(8),
            Metrics(),
            TaskGroupTracker(),
            app.authenticator,
            places=AccountPlaces(8, 100),
            rates=Rates(app.live),
        )
        yield Chained(app.authenticator, build_routes(app.bindings, chain))
