"""Loopback addresses for the processes of a private stack."""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.embedded.errors import EmbeddedError

FREE_RANGE: Final = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections, which could take one before its process listens."""

PORTS: Final = 4
"""How many each process has."""


@dataclass(frozen=True, slots=True)
class Listen:
    """The addresses of one serving process: the API, its ops HTTP, its ops gRPC health, and JSON over HTTP."""

    host: str
    api_port: int
    ops_port: int
    ops_grpc_port: int
    json_port: int
    takes_json: bool = field(default=False, kw_only=True)
    """Whether the process itself takes JSON. Otherwise nobody does, or an Envoy in front."""

    @property
    def api(self) -> str:
        """As `host:port`, for a gRPC channel."""
        return address(self.host, self.api_port)

    @property
    def json(self) -> str:
        """As `host:port`."""
        return address(self.host, self.json_port)

    @property
    def ports(self) -> tuple[int, ...]:
        """All of them."""
        return (self.api_port, self.ops_port, self.ops_grpc_port, self.json_port)

    def environment(self) -> dict[str, str]:
        """The settings that make a process listen here."""
        return {
            "LICTOR_API_ADDR": self.api,
            "LICTOR_OPS_ADDR": address(self.host, self.ops_port),
            "LICTOR_OPS_GRPC_ADDR": address(self.host, self.ops_grpc_port),
            **({"LICTOR_JSON_ADDR": self.json} if self.takes_json else {}),
        }


def address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def loopback(bind: str) -> str:
    """The numeric loopback host that `bind` means. EmbeddedError for any other: a private stack speaks plain text."""
    host = "127.0.0.1" if bind == "localhost" else bind.strip("[]")
    try:
        fine = ipaddress.ip_address(host).is_loopback
    except ValueError:
        fine = False
    if not fine:
        raise EmbeddedError(
            f"{bind} is not a loopback address, and this is plain text, for this machine alone. For others, run "
            "`lictor serve` with LICTOR_TLS_CERT_FILE and LICTOR_TLS_KEY_FILE"
        )
    return host


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bound(host: str, port: int) -> socket.socket:
    probe = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else ports of ended connections look busy
        probe.bind((host, port))
    except OSError:
        probe.close()
        raise
    return probe


def busy(host: str, ports: Sequence[int]) -> list[int]:
    """Those of the ports that something listens on, or that this user may not use."""
    found: list[int] = []
    for port in ports:
        try:
            _bound(host, port).close()
        except OSError:
            found.append(port)
    return found


def free_listen(host: str) -> Listen:
    """Ports that are free now."""
    return free_listens(host, 1)[0]


def free_listens(host: str, count: int) -> list[Listen]:
    """Free ports for each of `count` processes, in a row for each, as `lictor up --port` takes them."""
    found: list[Listen] = []
    rows = FREE_RANGE[::PORTS]
    for first in random.sample(rows, len(rows)):
        row = range(first, first + PORTS)
        if not busy(host, row):
            found.append(Listen(host, *row))
        if len(found) == count:
            return found
    raise EmbeddedError(f"no free ports for {count} processes on {host} from {FREE_RANGE.start} to {FREE_RANGE.stop}")
