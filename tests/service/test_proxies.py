"""Proxies before a process: whose word about a caller's address is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from shared.embedded.ports import Listen, free_listen
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.serving import needs_envoy, serve_echo, serving, settled
from tests.helpers.tls_site import ask, said_before_it_ended, settings_of
from tests.service.test_transport_envoy import command_of, envoy_of


async def test_grpcio_believes_no_proxy(tmp_path: Path) -> None:
    lines = await said_before_it_ended(tmp_path, settings_of("grpcio", tmp_path, trusted_proxies="1"))
    assert "LICTOR_TRUSTED_PROXIES needs LICTOR_TRANSPORT=envoy" in lines[-1]


@needs_envoy
async def test_a_service_believes_as_many_proxies_as_it_is_told(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    async with serving(postgres, tmp_path, trusted_proxies="2") as served:
        command = command_of(envoy_of(served))
        config = Path(command[command.index("-c") + 1]).read_text()  # noqa: ASYNC240 - a look
    assert config.count('"xff_num_trusted_hops": 2') == 1


@needs_envoy
@pytest.mark.parametrize(
    ("trusted", "forwarded", "peer"),
    [
        (0, None, "ipv4:127.0.0.1:"),
        (0, "198.51.100.7", "ipv4:127.0.0.1:"),
        (1, None, "ipv4:127.0.0.1:"),
        (1, "198.51.100.7", "ipv4:198.51.100.7:"),
        (1, "203.0.113.9, 198.51.100.7", "ipv4:198.51.100.7:"),
        (1, "203.0.113.9,2001:db8::7", "ipv6:[2001:db8::7]:"),
        (1, "nobody", "ipv4:127.0.0.1:"),
    ],
)
async def test_the_address_behind_proxies(
    proxied: dict[int, Listen], trusted: int, forwarded: str | None, peer: str
) -> None:
    metadata = () if forwarded is None else (("x-forwarded-for", forwarded),)
    async with grpc.aio.insecure_channel(proxied[trusted].api) as channel:
        assert (await ask(channel, "peer", *metadata)).startswith(peer)
        assert "x-forwarded-for" not in await ask(channel, "metadata", *metadata)


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="proxied")
async def _proxied(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[dict[int, Listen]]:
    """Where Envoy listens that believes so many proxies."""
    listens = {number: free_listen("127.0.0.1") for number in (0, 1)}
    folder = tmp_path_factory.mktemp("proxied")
    processes = {n: serve_echo(folder, listen, trusted_proxies=str(n)) for n, listen in listens.items()}
    try:
        for number, process in processes.items():
            assert await settled(process, listens[number]), process.log.read_text()
        yield listens
    finally:
        for process in processes.values():
            await asyncio.to_thread(process.stop)
