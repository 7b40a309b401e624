"""One service with the whole standard chain, at the addresses of the environment, on either transport."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from shared.clock import SystemClock
from shared.observe.logging import configure
from shared.rpc.ages import CONNECTION_AGE_S
from shared.rpc.auth import Authenticator
from shared.rpc.envoy.bootstrap import EnvoySettings
from shared.rpc.envoy.host import EnvoyApplication, EnvoyHost
from shared.rpc.envoy.parent import run_envoy
from shared.rpc.routes import ServiceBinding
from shared.rpc.runtime import App, Host, ServeSettings, serve

LEAVE_WITHIN_S: Final = 20.0


async def serve_one(
    binding: ServiceBinding, authenticator: Authenticator, host: Host | None = None, drain_s: float = 1.0
) -> None:
    """Serves until told to stop: on grpcio, or under `host`."""
    configure(json=False, level="info")
    api, ops, ops_grpc = (os.environ[f"LICTOR_{name}_ADDR"] for name in ("API", "OPS", "OPS_GRPC"))
    # One principal calls here: what is measured or shown is not how it is kept from others.
    settings = ServeSettings(api, ops, ops_grpc, account_share_percent=100, lame_duck_s=0, drain_s=drain_s)
    await serve(App([binding], authenticator, lambda: True), settings, SystemClock(), host=host)


def application(binding: ServiceBinding, authenticator: Authenticator, drain_s: float = 1.0) -> EnvoyApplication:
    """What Envoy loads."""

    async def serve_inside(host: EnvoyHost) -> None:
        await serve_one(binding, authenticator, host, drain_s)

    return EnvoyApplication(serve_inside, (OSError,))


def run_inside_envoy(name: str, connection_age_s: float = CONNECTION_AGE_S) -> None:
    """Runs an Envoy with an application, `module:name`, until told to stop."""
    configure(json=False, level="info")
    address = os.environ["LICTOR_API_ADDR"]
    settings = EnvoySettings(address, name, json_logs=False, connection_age_s=connection_age_s)
    asyncio.run(run_envoy(settings, LEAVE_WITHIN_S))
