"""Processes with certificates, and what callers of them need."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from google.protobuf.wrappers_pb2 import StringValue
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from shared.embedded.ports import Listen, free_listen
from shared.embedded.process import GuardedProcess
from tests.helpers.certificates import Authority, Pair
from tests.helpers.echo import SERVICE, as_is
from tests.helpers.h2 import DATA, frames_of_a_call
from tests.helpers.serving import ended, launch, serve_echo, settled

WORKLOAD = "spiffe://example.org/ns/billing/sa/checkout"
FORGED = "x-forwarded-client-cert"


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
    """What a handshake and a call came to."""

    certificate: bytes
    protocol: str | None
    session: ssl.SSLSession | None
    resumed: bool | None
    identity: str


def handshake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Seen:
    """Connects and asks who the caller is."""
    who = CreateLicenseRequest(display_name="identity").SerializeToString()
    call = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + frames_of_a_call(1, "Read", who, end=True)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as raw,
        context.wrap_socket(raw, session=session) as connection,
    ):
        connection.sendall(call)
        certificate = connection.getpeercert(binary_form=True) or b""
        identity = StringValue.FromString(_data(connection)[5:]).value
        protocol = connection.selected_alpn_protocol()
        return Seen(certificate, protocol, connection.session, connection.session_reused, identity)


def _data(connection: ssl.SSLSocket) -> bytes:
    """The first frame of data."""
    with connection.makefile("rb") as file:
        while head := file.read(9):
            payload = file.read(int.from_bytes(head[:3], "big"))
            if head[3] == DATA:
                return payload
    raise ConnectionResetError


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
