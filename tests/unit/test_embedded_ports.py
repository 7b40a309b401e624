"""Ports for a private stack's processes are free, and no two processes get the same."""

from __future__ import annotations

import socket

from shared.embedded.ports import FREE_RANGE, busy, free_listens


def test_many_processes_share_no_port() -> None:
    listens = free_listens("127.0.0.1", 200)
    ports = [port for one in listens for port in one.ports]
    assert len(set(ports)) == len(ports) == 800
    assert set(ports) <= set(FREE_RANGE)
    assert all(list(one.ports) == list(range(one.api_port, one.api_port + 4)) for one in listens)


def test_a_port_that_something_listens_on_is_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert busy("127.0.0.1", [port]) == [port]
