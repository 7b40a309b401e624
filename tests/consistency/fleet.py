"""Several serving processes on one record, each with a link of its own to it, that can be killed, stopped and started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services.bootstrap import bootstrap_operator_key
from shared.db.migrate import migrate
from shared.embedded.ports import Listen, free_listen
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import GuardedProcess
from shared.embedded.serving import SERVE
from shared.embedded.valkey import EmbeddedValkey
from tests.helpers.builders import METHODS, path_of
from tests.helpers.certificates import Authority, Pair
from tests.helpers.echo import as_is
from tests.helpers.links import Link, link_to
from tests.helpers.serving import launch, settled
from tests.helpers.suite import QUIET, new_settings

CHANNEL: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


def family(pid: int) -> list[int]:
    """A process and all that come from it, parents first."""
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [(int(child), int(parent)) for child, parent in map(str.split, shown.splitlines())]
    found = [pid]
    for one in found:
        found += [child for child, parent in pairs if parent == one]
    return found


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(frozen=True)
class Tls:
    """Certificates of the servers, and of each caller; who has no name has one without."""

    authority: Authority
    pairs: Mapping[str, Pair]
    environment: Mapping[str, str]

    @classmethod
    def written(cls, folder: Path, names: Sequence[str]) -> Tls:
        authority = Authority()
        cert_file, key_file = authority.server().write(folder, "server")
        ca_file = authority.write(folder / "callers.pem")
        files = {"CERT": cert_file, "KEY": key_file, "CLIENT_CA": ca_file}
        pairs = {"": authority.client(), **{name: authority.client(name) for name in names}}
        return cls(authority, pairs, {f"LICTOR_TLS_{name}_FILE": str(path) for name, path in files.items()})


def _channel(address: str, tls: Tls | None, name: str) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL)
    pair = tls.pairs[name]
    credentials = grpc.ssl_channel_credentials(tls.authority.certificate, pair.key, pair.certificate)
    return grpc.aio.secure_channel(address, credentials, options=CHANNEL)


@dataclass
class Server:
    """One `lictor serve`. It keeps its addresses when it is started again."""

    name: str
    transport: str
    folder: Path
    listen: Listen
    link: Link
    environment: Mapping[str, str]
    channels: Mapping[str, grpc.aio.Channel]
    """By the SPIFFE ID in the certificate that is shown; empty for none."""
    command: Sequence[str | Path] = SERVE
    process: GuardedProcess | None = None
    stopped: list[int] = field(default_factory=list[int])

    async def start(self) -> None:
        """Starts it and waits until it is ready."""
        environment = {
            **self.environment, "LICTOR_TRANSPORT": self.transport, "LICTOR_POSTGRES_DSN": self.link.dsn
        }  # fmt: skip
        process = launch(self.folder, self.listen, environment, self.command)
        self.process = process
        assert await settled(process, self.listen), process.log.read_text()

    async def kill(self) -> None:
        """kill -9 of all of it."""
        assert self.process is not None
        signal_all(family(self.process.pid), signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)

    def pause(self) -> None:
        """SIGSTOP of all of it; parents first, so that no child is born meanwhile."""
        assert self.process is not None
        self.stopped = family(self.process.pid)
        signal_all(self.stopped, signal.SIGSTOP)

    def resume(self) -> None:
        signal_all(self.stopped, signal.SIGCONT)
        self.stopped = []

    async def stop(self) -> None:
        if self.process is not None:
            self.resume()
            await asyncio.to_thread(self.process.stop)

    async def send(self, request: Message, authorization: str | None, timeout_s: float, identity: str = "") -> Any:
        """One call of the method that takes this request, as it is: nothing is tried again."""
        method = METHODS[cast("Descriptor", request.DESCRIPTOR).full_name]
        answer = message_factory.GetMessageClass(method.output_type)
        call = self.channels[identity].unary_unary(path_of(method), as_is, answer.FromString)
        shown = [] if authorization is None else [("authorization", authorization)]
        return await call(request.SerializeToString(), timeout=timeout_s, metadata=grpc.aio.Metadata(*shown))


@dataclass
class Fleet:
    """The processes, and the operator's key."""

    postgres: EmbeddedPostgres
    servers: Sequence[Server]
    operator: str = field(repr=False)
    admin_dsn: str
    valkey: EmbeddedValkey | None
    workloads: Sequence[str]
    """Who has a certificate."""


@asynccontextmanager
async def fleet(
    postgres: EmbeddedPostgres,
    folder: Path,
    transports: Sequence[str],
    commands: Sequence[Sequence[str | Path]] = (),
    valkey: EmbeddedValkey | None = None,
    *,
    workloads: int = 0,
    **more: str,
) -> AsyncGenerator[Fleet]:
    """One process for each transport, all ready, while the block runs. With `workloads` so many callers have certificates, and
    every connection is mutual TLS. `more` are settings without their prefix."""
    settings = new_settings(postgres, folder)
    await migrate(postgres.admin_dsn())
    key_file = folder / f"operator-{uuid4().hex}"
    await bootstrap_operator_key(postgres.admin_dsn(), settings.root_secret_file, key_file)
    environment = {
        "LICTOR_TARGET": "all",
        "LICTOR_ROOT_SECRET_FILE": str(settings.root_secret_file),
        "LICTOR_KEK_FILE": str(settings.kek_file),
        "LICTOR_LAME_DUCK_S": "0",
        "LICTOR_LOG_FORMAT": "text",
        **{f"LICTOR_{name.upper()}": "86400" for name in QUIET},
        **({"LICTOR_REDIS_URL": valkey.dsn()} if valkey is not None else {}),
        **{f"LICTOR_{name.upper()}": value for name, value in more.items()},
    }
    # Of one trust domain and under one path, each in a folder of its own.
    domain = f"spiffe://{uuid4().hex}.test/hammer"
    names = [f"{domain}/{n}/workload" for n in range(workloads)]
    tls = Tls.written(folder, names) if names else None
    environment |= {} if tls is None else tls.environment
    async with AsyncExitStack() as stack:
        servers: list[Server] = []
        for n, transport in enumerate(transports):
            link = await stack.enter_async_context(link_to(postgres.socket_dir))
            listen = free_listen("127.0.0.1")
            channels = {name: await stack.enter_async_context(_channel(listen.api, tls, name)) for name in ("", *names)}
            command = commands[n] if commands else SERVE
            server = Server(f"{transport}-{n}", transport, folder, listen, link, environment, channels, command)
            stack.push_async_callback(server.stop)
            servers.append(server)
        await asyncio.gather(*(server.start() for server in servers))
        yield Fleet(postgres, servers, f"Bearer {key_file.read_text().strip()}", postgres.admin_dsn(), valkey, names)
