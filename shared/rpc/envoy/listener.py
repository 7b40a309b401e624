"""One of Envoy's listeners: HTTP/2 for gRPC, or HTTP for JSON, with every limit that Envoy keeps."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from shared.rpc.addresses import split_address
from shared.rpc.ages import CONNECTION_AGE_S
from shared.rpc.envoy.tls import TYPES, EnvoyTls, forwarded_certificate

MAX_CONCURRENT_STREAMS: Final = 256
BUFFER_BYTES: Final = 1024 * 1024
REQUEST_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""The most that a filter may keep of a request that it needs whole: beyond it Envoy answers 413. Well over our own limit
of a message, so that our own answer names that. Where no filter does, the stream's window holds the caller back before."""
MAX_HEADERS_KIB: Final = 16


def listener(
    name: str,
    address: str,
    filters: Sequence[dict[str, Any]],
    *,
    codec: str,
    trusted_proxies: int,
    share_port: bool,
    tls: EnvoyTls | None = None,
    connection_age_s: float = CONNECTION_AGE_S,
) -> dict[str, Any]:
    """A listener.

    Args:
        name: Its name, in Envoy's statistics too.
        address: `host:port`; port 0 takes a free one.
        filters: The HTTP filters; the last one answers.
        codec: `HTTP2`, or `AUTO` for HTTP/1.1 as well. Never HTTP/3: pyvoy's listener for that lets clients in without
            their certificate.
        trusted_proxies: How many proxies in front may be believed about `x-forwarded-for`.
        share_port: Whether other processes of this deployment listen on the same port.
        tls: The certificate to show; None for plain text.
        connection_age_s: How old a connection becomes, give or take a fifth, before its caller is sent away.
    """
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": codec,
        "stat_prefix": name,
        "use_remote_address": True,
        "xff_num_trusted_hops": trusted_proxies,
        **forwarded_certificate(tls),
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "max_request_headers_kb": MAX_HEADERS_KIB,
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "0s",  # a watch may be silent for as long as nothing happens
        "drain_timeout": "1s",  # between the word to go and the refusal of what its client sends after that
        "common_http_protocol_options": {
            "idle_timeout": "900s",
            "max_connection_duration": f"{connection_age_s:.3f}s",
            "max_connection_duration_jitter": {"value": 20},
        },
        "http2_protocol_options": {
            "max_concurrent_streams": MAX_CONCURRENT_STREAMS,
            "initial_stream_window_size": BUFFER_BYTES,
            "initial_connection_window_size": 4 * BUFFER_BYTES,
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},
        },
        "route_config": {
            "virtual_hosts": [
                {
                    "name": name,
                    "domains": ["*"],
                    "request_body_buffer_limit": REQUEST_BUFFER_BYTES,
                    # Never taken, as the last filter answers every request; it carries the buffer limit.
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 404}}],
                }
            ]
        },
        "http_filters": list(filters),
    }
    return {
        "name": name,
        "address": {"socket_address": socket_address(address)},
        # Alone on its port a process wants it to itself: a second one must fail instead of taking half of the connections.
        "enable_reuse_port": share_port,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                **(tls.chain(["h2"] if codec == "HTTP2" else ["h2", "http/1.1"]) if tls is not None else {}),
            }
        ],
    }


def socket_address(address: str) -> dict[str, Any]:
    """Envoy takes numbers only, and IPv6 alone on `::` unless told otherwise."""
    host, port = split_address(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    number = str(found[0][4][0])
    return {"address": number, "port_value": port, **({"ipv4_compat": True} if number == "::" else {})}
