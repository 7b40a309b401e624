"""target=all: the four services in one process. Each keeps its own roles, schemas and pools."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from services.entitlement import app as entitlement
from services.license import app as license_
from services.machine import app as machine
from services.machine.license_calls import ISSUER
from services.suite_settings import SuiteSettings
from services.webhook import app as webhook
from shared.clock import Clock
from shared.facts.standing import standing
from shared.rpc.client import InsideCaller
from shared.rpc.runtime import App
from shared.settings import Target


@asynccontextmanager
async def build(settings: SuiteSettings, clock: Clock) -> AsyncGenerator[App]:
    """The methods of all four; ready when all are."""
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(standing(settings, clock))
        first = await stack.enter_async_context(license_.build_on(base, settings, Target.ALL))
        calls = InsideCaller(base.services, ISSUER)
        machines = await stack.enter_async_context(machine.build_on(base, settings, clock, calls))
        others = [
            await stack.enter_async_context(service.build(settings, clock, alone=False))
            for service in (entitlement, webhook)
        ]
        apps = (first, machines, *others)
        yield App(
            bindings=tuple(binding for app in apps for binding in app.bindings),
            authenticator=first.authenticator,
            ready=lambda: all(app.ready() for app in apps),
            live=first.live,
            waits=first.waits,
            recognise=first.recognise,
            services=first.services,
            inside=[calls],
            collectors=tuple(collector for app in apps for collector in app.collectors),
        )
