"""The ops listeners of several processes that serve together: one address for probes and scrapers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

import aiohttp
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.observe.logging import get_logger
from shared.observe.merge import PROCESS, merged
from shared.observe.metrics import Metrics
from shared.rpc.addresses import refuse_busy
from shared.rpc.admission import AdmissionGate, admission
from shared.rpc.grpcio import GrpcioTransport
from shared.rpc.health import HealthBoard
from shared.rpc.middleware import error_mapping, metadata_limit
from shared.rpc.ops import OpsListener
from shared.rpc.routes import build_routes

SCRAPE_WITHIN_S: Final = 2.0
SELF: Final = "supervisor"
"""The label of this process's own samples."""
_log = get_logger(__name__)


class _Restarts(Collector):
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "lictor_process_restarts", "Processes that ended and were replaced.", labels=[PROCESS]
        )
        for process, count in self.counts.items():
            family.add_metric([process], count)
        yield family


class GroupOps:
    """Answers for the group: from what this process knows of the others, and for metrics by asking them.

    gRPC health is answered here, not by the others in turn: a probe asks whether calls to the shared port are served,
    and one of the others that is just starting, or hangs, does not stand for all.

    Args:
        live: Whether the processes live.
        ready: Whether at least one of them serves calls.
        members: Where their own ops listeners are, by name.
    """

    def __init__(
        self, live: Callable[[], bool], ready: Callable[[], bool], members: Callable[[], Mapping[str, str]]
    ) -> None:
        self._ready = ready
        self._members = members
        self._http = OpsListener(self._exposition, live)
        metrics = Metrics()
        self._grpc = GrpcioTransport(metrics)
        self._chain = (admission(AdmissionGate(), metrics), error_mapping, metadata_limit)
        self._board = HealthBoard([])
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._restarts = _Restarts()
        self._registry.register(self._restarts)
        self._client: aiohttp.ClientSession | None = None

    async def start(self, ops_addr: str, ops_grpc_addr: str) -> tuple[int, int]:
        """Listens on both `host:port` addresses and returns the ports.

        Raises:
            OSError: An address cannot be bound.
        """
        refuse_busy(ops_grpc_addr)
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SCRAPE_WITHIN_S))
        await self.tell([])
        routes = build_routes([self._board.binding], self._chain)
        return await self._http.start(ops_addr, self._ready), await self._grpc.start(ops_grpc_addr, routes)

    async def close(self) -> None:
        """Stops listening."""
        await self._http.close()
        await self._grpc.drain(0)
        if self._client is not None:
            await self._client.close()

    def expect(self, process: str) -> None:
        """Names a process whose restarts will be counted."""
        self._restarts.counts[process] = 0

    def restarted(self, process: str) -> None:
        """Counts."""
        self._restarts.counts[process] += 1

    async def tell(self, services: Sequence[str]) -> None:
        """Tells gRPC health anew, of `services` too."""
        self._board.also(services)
        await self._board.set_serving(self._ready())

    async def _exposition(self) -> tuple[bytes, str]:
        members = self._members()
        texts = await asyncio.gather(*(self._scrape(address) for address in members.values()))
        found = {name: text for name, text in zip(members, texts, strict=True) if text is not None}
        return await asyncio.to_thread(merged, {**found, SELF: generate_latest(self._registry).decode()})

    async def _scrape(self, address: str) -> str | None:
        assert self._client is not None
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._client.get(f"http://{address}/metrics") as answer:
                return await answer.text()
        _log.warning("a process did not tell its metrics", ops=address)
        return None
