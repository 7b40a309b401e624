"""What tests of the tier in Redis need: a tier on a Valkey, a clock that they turn, and what was counted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import redis
from prometheus_client import Counter

from shared.crypto.root_secret import RootSecret
from shared.embedded.valkey import SOCKET_NAME, EmbeddedValkey
from shared.freshness.breaker import PAUSE_S
from shared.freshness.redis_metrics import Get, Put, TierMetrics
from shared.freshness.redis_tier import RedisTier
from shared.freshness.sealed_entry import Refusal
from tests.helpers.serving import until

SECRET = RootSecret(((1, bytes(range(32))),))
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PATIENT_S: Final = 5.0
EPOCH, LATER = UUID(int=1), UUID(int=2)


class TurnedClock:
    """Stands still unless it is turned."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at_s, UTC)

    def boottime(self) -> float:
        return self.at_s


@dataclass
class Used:
    """A tier with what it counts."""

    tier: RedisTier
    metrics: TierMetrics
    clock: TurnedClock = field(default_factory=TurnedClock)

    async def get(self, root: str, epoch: UUID = EPOCH) -> bytes | None:
        return await self.tier.get(root, epoch)

    async def put(self, root: str, body: bytes, epoch: UUID = EPOCH) -> None:
        """Puts until it is stored: one put may come to nothing."""
        before = self.puts(Put.STORED)

        def ended() -> int:
            return sum(self.puts(one) for one in Put)

        async def stored() -> bool:
            so_far = ended()
            self.tier.put(root, epoch, body)
            await until(lambda: ended() > so_far)
            return self.puts(Put.STORED) > before

        await until(stored)

    def gets(self, outcome: Get | Refusal) -> int:
        return _count(self.metrics.gets[outcome])

    def puts(self, outcome: Put) -> int:
        return _count(self.metrics.puts[outcome])

    def hints(self) -> int:
        return _count(self.metrics.hints)

    def misses(self) -> dict[str, int]:
        """The outcomes of gets that were no hits."""
        return {str(one): self.gets(one) for one in self.metrics.gets if self.gets(one) and one is not Get.HIT}


def _count(counter: Counter) -> int:
    return next(int(sample.value) for metric in counter.collect() for sample in metric.samples)


@asynccontextmanager
async def used_tier(
    url: str, secret: RootSecret = SECRET, *, budget_s: float = PATIENT_S, password_file: Path | None = None
) -> AsyncGenerator[Used]:
    """A tier that a busy machine makes no misses of, unless it is given a budget."""
    clock, metrics = TurnedClock(), TierMetrics()
    tier = RedisTier(url, secret, clock, metrics, password_file=password_file, budget_s=budget_s)
    try:
        yield Used(tier, metrics, clock)
    finally:
        await tier.close()


@contextmanager
def looking(server: EmbeddedValkey) -> Generator[Any]:
    """A client that sees and writes all, as somebody with the address could."""
    driver: Any = redis.Redis
    client: Any = driver.from_url(server.dsn())
    try:
        yield client
    finally:
        client.close()


def emptied(server: EmbeddedValkey) -> EmbeddedValkey:
    """The server without entries and without figures."""
    with looking(server) as client:
        client.flushall()
        client.config_resetstat()
    return server


def calls(server: EmbeddedValkey, command: str) -> int:
    """How often the server has run a command."""
    with looking(server) as client:
        stats: dict[str, Any] = client.info("commandstats")
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


def only_looking(server: EmbeddedValkey) -> bool:
    """Whether nobody else is connected."""
    with looking(server) as client:
        return len(client.client_list()) == 1


async def recovered(used: Used) -> None:
    """Lets the pause pass, and waits until gets are asked again."""
    used.clock.at_s += PAUSE_S

    async def asked() -> bool:
        skipped = used.gets(Get.SKIPPED)
        await used.get("one")
        used.clock.at_s += PAUSE_S
        return used.gets(Get.SKIPPED) == skipped

    await until(asked)


async def hit(used: Used) -> None:
    """Waits until a get finds what was put: a single one may be late on a busy machine."""

    async def found() -> bool:
        return await used.get("one") == b"facts"

    await until(found)


@asynccontextmanager
async def answering(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """A server on a port of its own."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def passed_on_to(valkey: EmbeddedValkey) -> Handler:
    """Passes everything on to a server."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(valkey.socket_dir / SOCKET_NAME))
        await asyncio.gather(copy(reader, back), copy(there, writer))

    return handle


async def hears_hints(used: Used) -> None:
    """Listens, and waits for a hint of its own."""
    heard = used.hints()
    used.tier.listen(lambda: None)

    async def hint() -> bool:
        used.tier.publish_hint()
        await asyncio.sleep(0.01)
        return used.hints() > heard

    await until(hint)
