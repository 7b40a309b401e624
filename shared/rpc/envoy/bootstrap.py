"""Envoy's configuration. It is ours from end to end; of pyvoy it takes the filter that holds the Python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.rpc.ages import CONNECTION_AGE_S
from shared.rpc.envoy.json_listener import json_listener
from shared.rpc.envoy.listener import listener
from shared.rpc.envoy.program import CONFIG, module
from shared.rpc.envoy.tls import TYPES, EnvoyTls, private_file
from shared.rpc.tls import TlsFiles

MAX_CONNECTIONS: Final = 10_000
PREMATURE_RESETS: Final = 2_000
"""Envoy closes a connection once half as many of its requests were reset by the client within a second, unanswered, if
they are most of its requests. The default, 500, is reached by an honest client with tight deadlines; beyond 1,000 resets
in a burst Envoy's HTTP/2 codec closes the connection anyway."""
NODE: Final = "lictor"
"""A name of its own, which Envoy wants before it reads certificates from files."""
ADMIN_SOCKET: Final = "admin.sock"
LEAVING: Final = "leaving"
"""A file that holds 0, and 1 once the process leaves."""
LEAVING_MONITOR: Final = "envoy.resource_monitors.injected_resource"
API: Final = "api"
"""The name of the listener for gRPC."""


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """What differs from process to process.

    Attributes:
        api_addr: Where calls are taken, host:port; port 0 takes a free one.
        application: The ASGI application, `module:name`.
        json_logs: Whether Envoy's own log lines are JSON.
        json_addr: Where JSON over HTTP is taken, host:port; None for nowhere.
        json_services: What can be called there, by full names.
        tls: The certificate to show, on both; None for plain text.
        trusted_proxies: How many proxies in front may be believed about `x-forwarded-for`.
        share_port: Whether other processes of this deployment listen on the same ports.
        connection_age_s: How old a connection becomes, give or take a fifth, before its caller is sent away.
    """

    api_addr: str
    application: str
    json_logs: bool
    json_addr: str | None = None
    json_services: tuple[str, ...] = ()
    tls: TlsFiles | None = None
    trusted_proxies: int = 0
    share_port: bool = False
    connection_age_s: float = CONNECTION_AGE_S


def write_bootstrap(folder: Path, settings: EnvoySettings) -> None:
    """Writes the configuration, which nobody else may read: arguments can be seen by every user of a machine."""
    if settings.tls is not None:
        EnvoyTls(folder, settings.tls).write()
    (folder / LEAVING).write_text("0")
    private_file(folder / CONFIG, bootstrap(folder, settings))


def mark_leaving(folder: Path) -> None:
    """Makes the Envoy whose files are in `folder` send its connections away."""
    made = folder / f"{LEAVING}.new"
    made.write_text("1")
    made.replace(folder / LEAVING)  # Envoy watches for a file that is moved here


def bootstrap(folder: Path, settings: EnvoySettings) -> dict[str, Any]:
    """The configuration of an Envoy whose files are in `folder`."""
    python = python_filter(settings.application)
    tls = EnvoyTls(folder, settings.tls) if settings.tls is not None else None
    api = listener(
        API, settings.api_addr, [python], codec="HTTP2",
        trusted_proxies=settings.trusted_proxies, share_port=settings.share_port, tls=tls,
        connection_age_s=settings.connection_age_s,
    )  # fmt: skip
    listeners = [api]
    if settings.json_addr is not None:
        # Without a lifespan: what the application is, it is by the first listener; see `across`.
        json_python = python_filter(settings.application, lifespan=False)
        listeners.append(
            json_listener(
                settings.json_addr, settings.json_services, json_python,
                trusted_proxies=settings.trusted_proxies, share_port=settings.share_port, tls=tls,
            )
        )  # fmt: skip
    made: dict[str, Any] = {
        "node": {"id": NODE, "cluster": NODE},
        "admin": private_admin(folder),
        "layered_runtime": {
            "layers": [
                {"name": "limits", "static_layer": {"overload.premature_reset_total_stream_count": PREMATURE_RESETS}}
            ]
        },
        "overload_manager": {**overload_manager(folder / LEAVING), "actions": [_send_away()]},
        "static_resources": {"listeners": listeners},
    }
    if settings.json_logs:
        form = {"timestamp": "%Y-%m-%dT%T.%FZ", "level": "%l", "module": "envoy.%n", "event": "%j"}
        made["application_log_config"] = {"log_format": {"json_format": form}}
    return made


def private_admin(folder: Path) -> dict[str, Any]:
    """Everyone who reaches the admin interface can end the process: the folder is 0700 and the socket 0600."""
    return {"address": {"pipe": {"path": str(folder / ADMIN_SOCKET), "mode": 0o600}}}


def overload_manager(leaving: Path | None = None) -> dict[str, Any]:
    """A bound on connections, all listeners together; with `leaving`, also a look at what that file holds."""
    monitors: list[dict[str, Any]] = [
        {
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": f"{TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": MAX_CONNECTIONS,
            },
        }
    ]
    if leaving is None:
        return {"resource_monitors": monitors}
    injected = f"{TYPES}.resource_monitors.injected_resource.v3.InjectedResourceConfig"
    monitors.append({"name": LEAVING_MONITOR, "typed_config": {"@type": injected, "filename": str(leaving)}})
    return {"resource_monitors": monitors, "refresh_interval": "0.1s"}


def _send_away() -> dict[str, Any]:
    """Makes every connection reach its age once the process leaves: each gets GOAWAY at once, idle ones too.

    Envoy's own draining sends GOAWAY with the next answer on a connection. A connection without calls would get none,
    and a call that its client sends as the process ends would be lost.
    """
    return {
        "name": "envoy.overload_actions.reduce_timeouts",
        "triggers": [{"name": LEAVING_MONITOR, "scaled": {"scaling_threshold": 0.5, "saturation_threshold": 1.0}}],
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
            "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_MAX", "min_timeout": "0s"}],
        },
    }


def python_filter(application: str, *, lifespan: bool = True) -> dict[str, Any]:
    """The filter that hands requests to the application."""
    # One event loop: all that a service holds in memory belongs to it.
    python = {"app": application, "interface": "asgi", "root_path": "", "lifespan": lifespan, "worker_threads": 1}
    return {
        "name": "pyvoy",
        "typed_config": {
            "@type": f"{TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": str(module())}}},
            "filter_name": "pyvoy",
            "terminal_filter": True,
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps(python)},
        },
    }
