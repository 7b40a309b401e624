"""Certificates that are replaced while a process runs, and files that it does not start on, on both transports."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.helpers.certificates import Authority, Pair
from tests.helpers.serving import needs_envoy, until
from tests.helpers.tls_site import WORKLOAD, ask, running, said_before_it_ended, settings_of

KEPT = "the new TLS files cannot be used; the old ones are kept"


@pytest.fixture(scope="module", params=["grpcio", pytest.param("envoy", marks=needs_envoy)], name="transport")
def _transport(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_certificates_are_replaced_while_calls_go_on(transport: str, tmp_path: Path) -> None:
    async with running(transport, tmp_path, mutual=True) as site:
        answered, enough = 0, asyncio.Event()

        async def call() -> None:
            nonlocal answered
            while not enough.is_set():
                assert await site.ask("Ada", site.caller) == "Ada"  # on a connection of its own
                answered += 1

        async with site.channel(site.caller) as old, asyncio.TaskGroup() as calls:
            assert await ask(old, "Ada") == "Ada"
            for _ in range(3):
                calls.create_task(call())
            for name in ("second", "third"):
                site.servers.server(common_name=name).write(tmp_path, "server")
                await until(lambda name=name: site.shows(name), 10)
                before = answered
                await until(lambda before=before: answered > before + 5, 10)
            assert await ask(old, "Ada") == "Ada"
            enough.set()


async def test_many_callers_connect_at_once(transport: str, tmp_path: Path) -> None:
    async with running(transport, tmp_path, mutual=True) as site:
        left = 2_000

        async def call() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                assert await site.ask("Ada", site.caller) == "Ada"

        async with asyncio.TaskGroup() as calls:
            for _ in range(8):
                calls.create_task(call())
        assert site.process.exit_status() is None


async def test_another_authority_of_callers_is_taken_up(transport: str, tmp_path: Path) -> None:
    async with running(transport, tmp_path, mutual=True) as site:
        other = Authority("others")
        stranger = other.client("spiffe://example.org/other")
        await site.refuses(stranger)
        (tmp_path / "callers.pem").write_bytes(site.callers.certificate + other.certificate)
        await until(lambda: site.takes(stranger), 10)
        assert await site.ask("identity", stranger) == "spiffe://example.org/other"
        assert await site.ask("identity", site.caller) == WORKLOAD
        other.write(tmp_path / "callers.pem")

        async def refused() -> bool:
            return not await site.takes(site.caller)

        await until(refused, 10)
        assert await site.takes(stranger)


async def test_a_broken_replacement_keeps_the_old(transport: str, tmp_path: Path) -> None:
    async with running(transport, tmp_path, mutual=True) as site:
        good = site.servers.server(common_name="first")
        good.write(tmp_path, "server")
        await until(lambda: site.shows("first"), 10)
        for pair in (Pair(b"nonsense", good.key), Pair(good.certificate, site.caller.key)):
            before = len(site.lines(KEPT))
            pair.write(tmp_path, "server")

            async def noticed(before: int = before) -> bool:
                return await site.shows("first") and len(site.lines(KEPT)) > before

            await until(noticed, 10)
            for _ in range(5):
                assert await site.shows("first")
                assert await site.ask("Ada", site.caller) == "Ada"
        assert "is not the key of the certificate" in site.lines(KEPT)[-1]
        site.servers.server(common_name="second").write(tmp_path, "server")
        await until(lambda: site.shows("second"), 10)


async def test_a_process_does_not_start_on_files_that_cannot_be_used(transport: str, tmp_path: Path) -> None:
    cert_file, _ = Authority().server().write(tmp_path, "server")
    _, other_key = Authority().server().write(tmp_path, "other")
    files = {"tls_cert_file": cert_file, "tls_key_file": other_key, "tls_client_ca_file": tmp_path / "nothing"}
    [line] = await said_before_it_ended(tmp_path, settings_of(transport, tmp_path, **files))
    assert f"LICTOR_TLS_KEY_FILE: {other_key} is not the key of the certificate" in line
    assert f"LICTOR_TLS_CLIENT_CA_FILE: {tmp_path}/nothing: No such file or directory" in line
    [line] = await said_before_it_ended(tmp_path, settings_of(transport, tmp_path, tls_cert_file=cert_file))
    assert "LICTOR_TLS_CERT_FILE needs LICTOR_TLS_KEY_FILE" in line


async def test_plain_text_for_other_machines_is_warned_of(transport: str, tmp_path: Path) -> None:
    pair = Authority().server().write(tmp_path, "server")
    files = dict(zip(("tls_cert_file", "tls_key_file"), pair, strict=True))
    for more, warnings in (({}, 1), (files, 0)):
        environment = settings_of(transport, tmp_path, api_addr="0.0.0.0:0", **more)
        lines = await said_before_it_ended(tmp_path, environment)
        assert sum("plain text, and not only on this machine" in line for line in lines) == warnings
