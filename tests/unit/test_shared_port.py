"""A port for several processes: theirs alone."""

from __future__ import annotations

import socket

import pytest

from shared.rpc.addresses import refuse_busy, shared_port, split_address


def listening(address: str, *, shared: bool) -> socket.socket:
    made = socket.socket()
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(split_address(address))
    made.listen()
    return made


def test_port_0_becomes_one_number_for_all() -> None:
    with shared_port("127.0.0.1:0") as address:
        assert split_address(address)[1] > 0
        with listening(address, shared=True), listening(address, shared=True):
            pass


def test_the_port_takes_no_connection_before_somebody_listens() -> None:
    with shared_port("127.0.0.1:0") as address, pytest.raises(ConnectionRefusedError):
        socket.create_connection(split_address(address), 1)


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_listens_on_is_refused(shared: bool) -> None:
    with listening("127.0.0.1:0", shared=shared) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match=f"{address}: Address already in use"), shared_port(address):
            pass
        with pytest.raises(OSError, match=f"{address}: Address already in use"):
            refuse_busy(address)
