"""`lictor serve`: settings from the environment, then one process or several that serve a target until told to stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, assert_never

from pydantic import ValidationError

from services.entitlement.settings import Settings as EntitlementSettings
from services.license.settings import Settings as LicenseSettings
from services.machine.settings import Settings as MachineSettings
from services.suite_settings import SuiteSettings
from services.tls import checked_tls, named_tls, open_addresses
from services.webhook.settings import Settings as WebhookSettings
from shared.clock import Clock, SystemClock
from shared.observe.logging import configure, get_logger
from shared.rpc.addresses import shared_port
from shared.rpc.child import QUIT_WITHIN_S, Child
from shared.rpc.envoy.bootstrap import EnvoySettings
from shared.rpc.envoy.json_listener import mapped_services
from shared.rpc.envoy.parent import envoy, run_envoy
from shared.rpc.envoy.program import obstacle
from shared.settings import LogFormat, ProcessSettings, SettingsError, Target, Transport, refuse_unknown

if TYPE_CHECKING:
    from shared.rpc.runtime import App, Host

Build = Callable[[Any, Clock], "AbstractAsyncContextManager[App]"]

ENVOY_APPLICATION: Final = "services.envoy_entry:app"
WORKER: Final = (sys.executable, "-m", "services.worker")

SETTINGS: Final[dict[Target, type[ProcessSettings]]] = {
    Target.LICENSE: LicenseSettings,
    Target.ENTITLEMENT: EntitlementSettings,
    Target.MACHINE: MachineSettings,
    Target.WEBHOOK: WebhookSettings,
    Target.ALL: SuiteSettings,
}


PACKAGES: Final[dict[Target, tuple[str, ...]]] = {
    Target.LICENSE: ("lictor.account", "lictor.license"),
    Target.ENTITLEMENT: ("lictor.entitlement",),
    Target.MACHINE: ("lictor.machine",),
    Target.WEBHOOK: ("lictor.webhook",),
    Target.ALL: ("lictor.account", "lictor.license", "lictor.entitlement", "lictor.machine", "lictor.webhook"),
}
"""The contract's packages that a target serves, without their version."""


def read_target() -> Target:
    """LICTOR_TARGET. SettingsError for a name that is no target."""
    name = os.environ.get("LICTOR_TARGET", "")
    if name not in set(Target):
        raise SettingsError(f"LICTOR_TARGET is {name!r}: it must be one of {', '.join(Target)}")
    return Target(name)


def read_settings(target: Target) -> ProcessSettings:
    """SettingsError names every variable that is missing or bad, by its own name and never with its value."""
    # Every target of one deployment shares an environment, so the settings of all are known to each.
    refuse_unknown(*SETTINGS.values())
    try:
        return SETTINGS[target]()  # pyright: ignore[reportCallIssue] - the fields come from the environment
    except ValidationError as error:
        faults = [f"LICTOR_{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(faults)) from None


async def run() -> None:
    """Serves until SIGTERM or SIGINT."""
    target = read_target()
    settings = read_settings(target)
    configure(json=settings.log_format is LogFormat.JSON, level=settings.log_level)
    tls = checked_tls(settings)
    if tls is None and (seen_by_others := open_addresses(settings)):
        get_logger(__name__).warning("plain text, and not only on this machine", addresses=seen_by_others)
    transport = chosen_transport(settings.transport)
    if transport is Transport.GRPCIO:
        _refuse_what_needs_envoy(settings)
    if settings.processes > 1:
        await _serve_in_several(target, settings, transport)
    elif transport is Transport.ENVOY:
        await run_envoy(_envoy_settings(target, settings), _leave_within_s(settings))
    else:
        await serve_target(target, settings)


async def serve_target(target: Target, settings: ProcessSettings, host: Host | None = None) -> None:
    """Builds a target and serves it: in this process, or within what `host` says is around."""
    # Whoever only watches over processes need not load what they serve.
    from shared.rpc.runtime import ServeSettings, serve  # noqa: PLC0415

    clock = SystemClock()
    async with _build_of(target)(settings, clock) as app:
        served = ServeSettings(
            api_addr=settings.api_addr,
            ops_addr=settings.ops_addr,
            ops_grpc_addr=settings.ops_grpc_addr,
            json_addr=settings.json_addr,
            reflection=settings.reflection,
            max_in_flight=settings.max_in_flight,
            account_share_percent=settings.account_share_percent,
            lame_duck_s=settings.lame_duck_s,
            drain_s=settings.drain_s,
            tls=named_tls(settings),
        )
        await serve(app, served, clock, host=host)


def _build_of(target: Target) -> Build:
    """Loads a target."""
    match target:
        case Target.LICENSE:
            from services.license.app import build  # noqa: PLC0415
        case Target.ENTITLEMENT:
            from services.entitlement.app import build  # noqa: PLC0415
        case Target.MACHINE:
            from services.machine.app import build  # noqa: PLC0415
        case Target.WEBHOOK:
            from services.webhook.app import build  # noqa: PLC0415
        case Target.ALL:
            from services.suite import build  # noqa: PLC0415
        case _ as never:
            assert_never(never)
    return build


async def _serve_in_several(target: Target, settings: ProcessSettings, transport: Transport) -> None:
    # One process that watches over itself needs neither this nor gRPC.
    from shared.rpc.supervisor import GroupSettings, Supervisor, worker  # noqa: PLC0415

    leave_within_s = _leave_within_s(settings)
    with ExitStack() as ports:
        api_addr = ports.enter_context(shared_port(settings.api_addr))
        json_addr = ports.enter_context(shared_port(settings.json_addr)) if settings.json_addr is not None else None
        shared = replace(_envoy_settings(target, settings), api_addr=api_addr, json_addr=json_addr, share_port=True)
        inside = {"LICTOR_API_ADDR": api_addr, "LICTOR_OPS_ADDR": "127.0.0.1:0", "LICTOR_OPS_GRPC_ADDR": "127.0.0.1:0"}

        def open_child() -> AbstractAsyncContextManager[Child]:
            if transport is Transport.ENVOY:
                return envoy(shared, leave_within_s, inside)
            return worker(WORKER, inside, leave_within_s)

        group = GroupSettings(settings.processes, settings.ops_addr, settings.ops_grpc_addr)
        await Supervisor(open_child, group).run()


def _envoy_settings(target: Target, settings: ProcessSettings) -> EnvoySettings:
    return EnvoySettings(
        api_addr=settings.api_addr,
        application=ENVOY_APPLICATION,
        json_logs=settings.log_format is LogFormat.JSON,
        json_addr=settings.json_addr,
        json_services=mapped_services(PACKAGES[target]),
        tls=named_tls(settings),
        trusted_proxies=settings.trusted_proxies,
    )


def _leave_within_s(settings: ProcessSettings) -> float:
    return settings.lame_duck_s + 2 * settings.drain_s + QUIT_WITHIN_S


def chosen_transport(wanted: Transport) -> Transport:
    """The transport that a process runs on: never `auto`. One line of the log says what was chosen for it, and why.

    Raises:
        SettingsError: Envoy was named and cannot be.
    """
    if wanted is Transport.GRPCIO:
        return wanted
    why_not = obstacle()
    if wanted is Transport.ENVOY:
        if why_not is not None:
            raise SettingsError(f"LICTOR_TRANSPORT is envoy, but {why_not}")
        return wanted
    chosen = Transport.ENVOY if why_not is None else Transport.GRPCIO
    why = why_not or "pyvoy and a shared libpython are here"
    get_logger(__name__).info("transport chosen", transport=chosen.value, why=why)
    return chosen


def _refuse_what_needs_envoy(settings: ProcessSettings) -> None:
    """SettingsError when a process that grpcio serves is told what only Envoy can do."""
    if settings.trusted_proxies > 0:
        raise SettingsError("LICTOR_TRUSTED_PROXIES needs LICTOR_TRANSPORT=envoy")
    refuse_json(settings)


def refuse_json(settings: ProcessSettings) -> None:
    """SettingsError when a process that grpcio serves is told to take JSON, which it cannot."""
    if settings.json_addr is None:
        return
    how = "LICTOR_TRANSPORT is grpcio"
    if settings.transport is Transport.AUTO:
        how = f"LICTOR_TRANSPORT is auto and takes grpcio here ({obstacle()})"
    raise SettingsError(f"LICTOR_JSON_ADDR is set, but {how}: only the transport envoy takes JSON")
