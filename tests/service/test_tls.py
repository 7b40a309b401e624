"""TLS and mutual TLS on both transports: who gets in, who a caller is, and certificates that are replaced."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from cryptography import x509
from google.protobuf.wrappers_pb2 import StringValue
from lictor import AsyncLictor, PermissionDenied, TlsConfig, Unauthenticated
from lictor.account.v1.account_service_pb2 import WhoAmIRequest
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.embedded.ports import Listen, free_listen
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import GuardedProcess
from tests.helpers.certificates import DAY, Authority, Pair
from tests.helpers.echo import SERVICE, as_is
from tests.helpers.serving import ended, launch, needs_envoy, serve_echo, serving, settled, until
from tests.helpers.suite import bearer
from tests.service.test_transport_envoy import command_of, envoy_of

WORKLOAD = "spiffe://example.org/ns/billing/sa/checkout"
FORGED = "x-forwarded-client-cert"
KEPT = "the new TLS files cannot be used; the old ones are kept"


@dataclass(frozen=True)
class Site:
    """An echo service with a certificate, and what a caller needs."""

    folder: Path
    listen: Listen
    process: GuardedProcess
    servers: Authority
    callers: Authority
    caller: Pair
    """Of `callers`, for `WORKLOAD`."""

    @asynccontextmanager
    async def channel(self, pair: Pair | None = None) -> AsyncGenerator[grpc.aio.Channel]:
        """A connection of its own."""
        key, chain = (pair.key, pair.certificate) if pair is not None else (None, None)
        credentials = grpc.ssl_channel_credentials(self.servers.certificate, key, chain)
        alone = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(self.listen.api, credentials, options=alone) as channel:
            yield channel

    async def ask(self, text: str, pair: Pair | None = None, *metadata: tuple[str, str]) -> str:
        async with self.channel(pair) as channel:
            return await ask(channel, text, *metadata)

    async def refuses(self, pair: Pair | None) -> None:
        """No call gets through; it ends for want of a connection, not of patience."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask("Ada", pair)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    async def takes(self, pair: Pair) -> bool:
        """Whether a caller with this certificate gets in."""
        try:
            return await self.ask("Ada", pair) == "Ada"
        except grpc.aio.AioRpcError:
            return False

    async def shows(self, name: str) -> bool:
        """Whether a new connection gets to see the certificate of this name."""
        seen = await asyncio.to_thread(handshake, self.listen.api_port, self.client())
        return f"CN={name}" == x509.load_der_x509_certificate(seen.certificate).subject.rfc4514_string()

    def client(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """A client that shows the caller's certificate where it is asked, believes every server, and speaks one version."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["http/1.1", "h2"])
        context.load_cert_chain(self.folder / "caller.pem", self.folder / "caller.key")
        return context

    def lines(self, word: str) -> list[str]:
        """The lines of the log with this in it."""
        return [line for line in self.process.log.read_text().splitlines() if word in line]


async def ask(channel: grpc.aio.Channel, text: str, *metadata: tuple[str, str]) -> str:
    call = channel.unary_unary(f"/{SERVICE}/Read", as_is, StringValue.FromString)
    sent = grpc.aio.Metadata(("authorization", "Bearer all"), *metadata)
    return (await call(CreateLicenseRequest(display_name=text).SerializeToString(), metadata=sent, timeout=10)).value


@dataclass(frozen=True)
class Seen:
    """What a handshake came to."""

    certificate: bytes
    protocol: str | None
    session: ssl.SSLSession | None
    resumed: bool | None


def handshake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Seen:
    """Connects and waits for the server's first bytes, with which its sessions come."""
    with (
        socket.create_connection(("127.0.0.1", port), 5) as raw,
        context.wrap_socket(raw, session=session) as connection,
    ):
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        connection.recv(1)
        certificate = connection.getpeercert(binary_form=True) or b""
        return Seen(certificate, connection.selected_alpn_protocol(), connection.session, connection.session_reused)


@asynccontextmanager
async def running(transport: str, folder: Path, *, mutual: bool) -> AsyncGenerator[Site]:
    servers, callers = Authority("servers"), Authority("callers")
    caller = callers.client(WORKLOAD)
    caller.write(folder, "caller")
    cert_file, key_file = servers.server().write(folder, "server")
    listen = free_listen("127.0.0.1")
    files = {"tls_cert_file": str(cert_file), "tls_key_file": str(key_file)}
    if mutual:
        files["tls_client_ca_file"] = str(callers.write(folder / "callers.pem"))
    process = serve_echo(folder, listen, transport=transport, **files)
    try:
        assert await settled(process, listen), process.log.read_text()
        yield Site(folder, listen, process, servers, callers, caller)
    finally:
        await asyncio.to_thread(process.stop)
    assert "Traceback" not in process.log.read_text(), process.log.read_text()


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


async def test_a_session_is_not_resumed_where_callers_show_certificates(mutual: Site, site: Site) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for served, resumed in ((site, True), (mutual, False)):
            context = served.client(version)
            first = await asyncio.to_thread(handshake, served.listen.api_port, context)
            second = await asyncio.to_thread(handshake, served.listen.api_port, context, first.session)
            assert (first.session is not None, second.resumed) == (True, resumed)


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


def settings_of(transport: str, folder: Path, **more: str | Path) -> dict[str, str]:
    """The environment of a `lictor serve` that finds no Postgres."""
    named = {"target": "all", "transport": transport, "log_format": "text", "root_secret_file": folder / "root-secret"}
    named |= {"postgres_dsn": f"postgresql:///lictor?host={folder}"} | more
    return {f"LICTOR_{name.upper()}": str(value) for name, value in named.items()}


async def said_before_it_ended(folder: Path, environment: dict[str, str]) -> list[str]:
    """What a process that cannot serve says."""
    process = launch(folder, free_listen("127.0.0.1"), environment)
    try:
        assert await ended(process) == 1
        return process.log.read_text().splitlines()
    finally:
        await asyncio.to_thread(process.stop)


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
