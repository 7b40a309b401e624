"""Listening addresses: their parts, whether they are free, and a port that several processes share."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager


def split_address(address: str) -> tuple[str, int]:
    """The host and port of `127.0.0.1:7421` or `[::1]:7421`.

    Raises:
        ValueError: There is no port.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ValueError(f"not a host:port address: {address!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refuse_busy(address: str) -> None:
    """Raises OSError when the address cannot be bound: clearer, and sooner, than what is to listen there says."""
    host, port = split_address(address)
    if port:
        _bind(host, port, shared=False).close()


@contextmanager
def shared_port(address: str) -> Generator[str]:
    """Keeps a port for processes that listen on it together while the block runs; yields the address with its number.

    Raises:
        OSError: Somebody else has it.
    """
    refuse_busy(address)
    host, port = split_address(address)
    # Bound and not listening: it keeps others away and takes no connections.
    with _bind(host, port, shared=True) as kept:
        yield join_address(host, kept.getsockname()[1])


def _bind(host: str, port: int, *, shared: bool) -> socket.socket:
    family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind(where)
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"{join_address(host, port)}: {os.strerror(error.errno or 0)}") from None
    return made
