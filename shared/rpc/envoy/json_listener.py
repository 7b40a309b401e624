"""JSON over HTTP on a listener of its own: Envoy turns requests into calls of the contract, and answers into JSON."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from google.api import annotations_pb2  # pyright: ignore[reportMissingTypeStubs]
from google.protobuf.descriptor_pb2 import FileDescriptorSet, ServiceDescriptorProto

from shared.rpc.envoy.json_refusals import local_replies
from shared.rpc.envoy.listener import listener
from shared.rpc.envoy.tls import TYPES, EnvoyTls

_HTTP: Final = cast("Any", annotations_pb2).http
JSON: Final = "json"
"""The name of the listener for JSON."""
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_RESPONSE_BYTES: Final = 32 * 1024 * 1024
"""Room for 3 MiB of protobuf: JSON names each field, and writes six bytes for one of some."""
BODY_WITHIN: Final = "10s"
"""How long a whole request may take to arrive: as long as the record is waited for."""


def json_listener(
    address: str,
    services: Sequence[str],
    last: Mapping[str, Any],
    *,
    trusted_proxies: int = 0,
    share_port: bool = False,
    tls: EnvoyTls | None = None,
    route: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The listener.

    Args:
        address: `host:port`; port 0 takes a free one.
        services: The full names of the services that can be called; every other path is refused.
        last: The filter that serves the calls.
        trusted_proxies: How many proxies in front may be believed about `x-forwarded-for`.
        share_port: Whether other processes of this deployment listen on the same port.
        tls: The certificate to show; None for plain text.
        route: Where `last` sends calls, if it is Envoy's router.
    """
    filters = [_WHATEVER_TYPE, _WHOLE_BODY, _transcoder(services), dict(last)] if services else [ROUTER]
    made = listener(
        JSON, address, filters, codec="AUTO", trusted_proxies=trusted_proxies, share_port=share_port, tls=tls
    )
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    manager |= {
        "normalize_path": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_timeout": BODY_WITHIN,
        "local_reply_config": local_replies(),
    }
    if route is not None:
        manager["route_config"]["virtual_hosts"][0]["routes"] = [{"match": {"prefix": "/"}, "route": dict(route)}]
    return made


def mapped_services(packages: Sequence[str]) -> tuple[str, ...]:
    """The services of these packages, versions included, that have a mapping to HTTP for any of their methods."""
    files = FileDescriptorSet.FromString(_descriptors().read_bytes())
    return tuple(
        f"{file.package}.{service.name}"
        for file in files.file
        for service in file.service
        if file.package.rpartition(".")[0] in packages and _is_mapped(service)
    )


def _is_mapped(service: ServiceDescriptorProto) -> bool:
    return any(method.options.HasExtension(_HTTP) for method in service.method)


def _descriptors() -> Path:
    found = importlib.util.find_spec("lictor")  # importing it would load gRPC
    return Path((found and found.origin) or "").parent / "descriptors.binpb"


def _transcoder(services: Sequence[str]) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.grpc_json_transcoder",
        "typed_config": {
            "@type": f"{TYPES}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
            "proto_descriptor": str(_descriptors()),
            "services": list(services),
            "convert_grpc_status": True,
            "print_options": {"always_print_primitive_fields": True},  # `"valid": false` is an answer
            "request_validation_options": {
                "reject_unknown_method": True,
                "reject_unknown_query_parameters": True,
                "reject_binding_body_field_collisions": True,
            },
            "max_request_body_size": MAX_BODY_BYTES,
            "max_response_body_size": MAX_RESPONSE_BYTES,
        },
    }


_WHATEVER_TYPE: Final[dict[str, Any]] = {
    # The transcoder lets everything pass that says it is gRPC, to methods that no path of the contract names.
    "name": "envoy.filters.http.header_mutation",
    "typed_config": {
        "@type": f"{TYPES}.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {"request_mutations": [{"remove": "content-type"}]},
    },
}
_WHOLE_BODY: Final[dict[str, Any]] = {
    # The transcoder measures only what it could not turn into protobuf yet, so its limit is none for a long string.
    "name": "envoy.filters.http.buffer",
    "typed_config": {"@type": f"{TYPES}.filters.http.buffer.v3.Buffer", "max_request_bytes": MAX_BODY_BYTES},
}
ROUTER: Final[dict[str, Any]] = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
}
"""The filter that sends requests where the route says."""
