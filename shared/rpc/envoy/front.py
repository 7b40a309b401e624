"""A stock Envoy that takes JSON over HTTP in front of a process that grpcio serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shared.rpc.envoy.bootstrap import overload_manager, private_admin
from shared.rpc.envoy.json_listener import ROUTER, json_listener
from shared.rpc.envoy.listener import socket_address
from shared.rpc.envoy.program import CONFIG
from shared.rpc.envoy.tls import TYPES, private_file

CONNECT_WITHIN: Final = "5s"
_API: Final = "api"


def write_front(folder: Path, json_addr: str, api_addr: str, services: Sequence[str]) -> None:
    """Writes the configuration of an Envoy that takes JSON at `json_addr`, and makes calls of it to `api_addr`.

    Args:
        folder: Where its files are, 0700.
        json_addr: `host:port`.
        api_addr: Where the services answer gRPC without TLS, `host:port`.
        services: What can be called, by full names.
    """
    # The process behind keeps the deadlines. Envoy's own would cut a call that is about to be answered.
    listener = json_listener(json_addr, services, ROUTER, route={"cluster": _API, "timeout": "0s"})
    made: dict[str, Any] = {
        "admin": private_admin(folder),
        "overload_manager": overload_manager(),
        "static_resources": {"listeners": [listener], "clusters": [_cluster(api_addr)]},
    }
    private_file(folder / CONFIG, made)


def _cluster(api_addr: str) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"socket_address": socket_address(api_addr)}}}
    options = f"{TYPES}.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": _API,
        "type": "STATIC",
        "connect_timeout": CONNECT_WITHIN,
        "load_assignment": {"cluster_name": _API, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
