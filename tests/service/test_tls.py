"""TLS and mutual TLS on both transports: who gets in, and who a caller is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from lictor import AsyncLictor, PermissionDenied, TlsConfig, Unauthenticated
from lictor.account.v1.account_service_pb2 import WhoAmIRequest

from shared.embedded.ports import free_listen
from shared.embedded.postgres import EmbeddedPostgres
from tests.helpers.certificates import DAY, Authority
from tests.helpers.serving import needs_envoy, serve_echo, serving, settled
from tests.helpers.suite import bearer
from tests.helpers.tls_site import FORGED, WORKLOAD, Site, ask, handshake, running


@pytest.fixture(scope="module", params=["grpcio", pytest.param("envoy", marks=needs_envoy)], name="transport")
def _transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="site")
async def _site(transport: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    """One that asks callers for no certificate."""
    async with running(transport, tmp_path_factory.mktemp("tls"), mutual=False) as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="session", name="mutual")
async def _mutual(transport: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    """One that asks callers for a certificate."""
    async with running(transport, tmp_path_factory.mktemp("mutual"), mutual=True) as site:
        yield site


async def test_plain_text_is_refused(site: Site, mutual: Site) -> None:
    for served in (site, mutual):
        async with grpc.aio.insecure_channel(served.listen.api) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(channel, "Ada")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_over_tls(site: Site) -> None:
    assert await site.ask("Ada") == "Ada"
    assert await site.ask("identity") == ""
    assert await site.ask("identity", site.caller) == "", "nobody asked for it"


async def test_a_caller_without_a_good_certificate_is_refused(mutual: Site) -> None:
    assert await mutual.ask("Ada", mutual.caller) == "Ada"
    await mutual.refuses(None)
    await mutual.refuses(Authority("callers").client(WORKLOAD))  # by name only the same
    await mutual.refuses(mutual.servers.client(WORKLOAD))
    await mutual.refuses(mutual.callers.client(WORKLOAD, lasts=-DAY))


@pytest.mark.parametrize(
    ("uris", "identity"),
    [
        ([WORKLOAD], WORKLOAD),
        (["spiffe://a/b%2Cc"], "spiffe://a/b%2Cc"),
        (["https://example.org/?a=b&URI=c"], "https://example.org/?a=b&URI=c"),
        ([], ""),
        ([WORKLOAD, "spiffe://example.org/other"], ""),
        ([WORKLOAD, WORKLOAD], ""),
        ([f"https://x/;URI={WORKLOAD}"], ""),
        ([f"https://x/,Hash=00;URI={WORKLOAD}"], ""),
        ([f'https://x/";URI="{WORKLOAD}'], ""),
        ([f"{WORKLOAD}\0.example.org"], ""),
        ([f"{WORKLOAD} "], ""),
        (["spiffe://a/\\b"], ""),
    ],
)
async def test_who_a_caller_is(mutual: Site, uris: list[str], identity: str) -> None:
    assert await mutual.ask("identity", mutual.callers.client(*uris)) == identity


async def test_a_caller_cannot_say_who_it_is(mutual: Site, site: Site, transport: str, tmp_path: Path) -> None:
    forged = (FORGED, f"Hash={'0' * 64};URI=spiffe://example.org/admin")
    nameless = mutual.callers.client()
    assert await mutual.ask("identity", mutual.caller, forged) == WORKLOAD
    assert await mutual.ask("identity", nameless, forged) == ""
    assert await site.ask("identity", None, forged) == ""
    assert FORGED not in await mutual.ask("metadata", mutual.caller, forged)
    assert FORGED not in await site.ask("metadata", None, forged)
    listen = free_listen("127.0.0.1")
    process = serve_echo(tmp_path, listen, transport=transport)
    try:
        assert await settled(process, listen), process.log.read_text()
        async with grpc.aio.insecure_channel(listen.api) as channel:
            assert await ask(channel, "identity", forged) == ""
            assert FORGED not in await ask(channel, "metadata", forged)
    finally:
        await asyncio.to_thread(process.stop)


@pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="NOT TESTED, a client of TLS 1.1: this Python cannot be one")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_1_2_is_the_oldest(site: Site) -> None:
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as refused:
        await asyncio.to_thread(handshake, site.listen.api_port, site.client(ssl.TLSVersion.TLSv1_1))
    # Envoy says why, grpc hangs up. A client that cannot speak it would say NO_PROTOCOLS_AVAILABLE.
    assert "AVAILABLE" not in str(refused.value)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        seen = await asyncio.to_thread(handshake, site.listen.api_port, site.client(version))
        assert seen.protocol == "h2"


async def test_who_a_caller_is_when_it_resumes_a_session(mutual: Site, site: Site, transport: str) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for served, resumed, identity in ((site, True, ""), (mutual, transport == "grpcio", WORKLOAD)):
            context = served.client(version)
            first = await asyncio.to_thread(handshake, served.listen.api_port, context)
            second = await asyncio.to_thread(handshake, served.listen.api_port, context, first.session)
            assert (first.session is not None, first.resumed, second.resumed) == (True, False, resumed)
            assert (first.identity, second.identity) == (identity, identity)


async def test_a_workload_calls_by_its_certificate_alone(
    postgres: EmbeddedPostgres, transport: str, tmp_path: Path
) -> None:
    authority, domain = Authority(), f"{transport}.{uuid4().hex}.test"
    checkout = f"spiffe://{domain}/ns/billing/sa/checkout"
    cert_file, key_file = authority.server().write(tmp_path, "server")
    ca_file = authority.write(tmp_path / "callers.pem")
    files = {"tls_cert_file": str(cert_file), "tls_key_file": str(key_file), "tls_client_ca_file": str(ca_file)}

    def tls(name: str, uri: str) -> TlsConfig:
        mine, my_key = authority.client(uri).write(tmp_path, name)
        return TlsConfig(ca_file=ca_file, cert_file=mine, key_file=my_key)

    async with serving(postgres, tmp_path, transport, **files) as served:
        endpoint, bound = served.listen.api, tls("workload", checkout)
        async with AsyncLictor(api_key=served.suite.operator_key, endpoint=endpoint, tls=bound) as operator:
            account_id = (await operator.accounts.create(display_name="Acme")).account.account_id
            binding = await operator.workload_bindings.create(
                spiffe_id_pattern=f"spiffe://{domain}/ns/billing/*",
                account_id=account_id,
                mode="LIVE",
                scopes=["products:read"],
            )
            async with AsyncLictor(endpoint=endpoint, tls=bound) as workload:
                me = await workload.whoami()
                assert (me.account_id, me.spiffe_id, list(me.scopes)) == (account_id, checkout, ["products:read"])
                assert [product async for product in workload.products.list()] == []
                with pytest.raises(PermissionDenied):
                    await workload.products.create(code="AB", display_name="x")
                async with AsyncLictor(endpoint=endpoint, tls=tls("other", f"spiffe://{domain}/ns/other")) as other:
                    with pytest.raises(Unauthenticated):
                        await other.whoami()
                await operator.workload_bindings.delete(binding.workload_binding.workload_binding_id)
                with pytest.raises(Unauthenticated):
                    await workload.whoami()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.suite.accounts.WhoAmI(WhoAmIRequest(), metadata=bearer(served.suite.operator_key), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
