"""Several processes that serve on one port: started together, replaced when they end or hang, made to leave in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import aiohttp

from shared.observe.logging import get_logger
from shared.rpc.addresses import join_address, split_address
from shared.rpc.child import Child, ChildError, FailedError, started
from shared.rpc.control import Up
from shared.rpc.group_ops import GroupOps
from shared.rpc.signals import signals

START_WITHIN_S: Final = 60.0
HUNG_AFTER_S: Final = 15.0
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
LONG_LIFE_S: Final = 60.0
"""A process that lived so long is replaced at once, as the first time."""
GIVE_UP_AFTER: Final = 5
"""So often each process may fail while none becomes ready."""
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How a group looks from outside.

    Attributes:
        processes: How many serve.
        ops_addr: `/livez`, `/readyz` and `/metrics` of the group, host:port.
        ops_grpc_addr: Its `grpc.health.v1`, host:port.
    """

    processes: int
    ops_addr: str
    ops_grpc_addr: str


@asynccontextmanager
async def worker(command: Sequence[str], inside: Mapping[str, str], leave_within_s: float) -> AsyncGenerator[Child]:
    """A process of our own to be run (see `shared.rpc.worker`), with `inside` added to its environment."""
    async with started(command, {**os.environ, **inside}, Child.name) as (process, control):
        yield Child(process, control, leave_within_s)


@dataclass(slots=True)
class _Place:
    """One of the processes, over all its lives."""

    name: str
    child: Child | None = None
    answers: bool = True
    """Whether it answered when it was last asked."""
    deaths: int = 0
    """Since one lived for `LONG_LIFE_S`."""
    failures: int = 0
    """Since one of the group was ready."""


class Supervisor:
    """Runs the processes of a group.

    Args:
        open_child: Starts one.
        settings: The group.
        hung_after_s: How long one may not answer before it is killed and replaced.
    """

    def __init__(
        self,
        open_child: Callable[[], AbstractAsyncContextManager[Child]],
        settings: GroupSettings,
        hung_after_s: float = HUNG_AFTER_S,
    ) -> None:
        self._open = open_child
        self._settings = settings
        self._hung_after_s = hung_after_s
        self._places = [_Place(str(number)) for number in range(settings.processes)]
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._ever_up = False
        self._why = ""
        self._ops = GroupOps(self._live, self._ready, self._members)

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT; a second signal hurries.

        Raises:
            ChildError: The processes cannot start, or fail again and again.
            OSError: An ops address cannot be bound.
        """
        telling = asyncio.create_task(self._tell(), name="health")
        try:
            ops_port, ops_grpc_port = await self._ops.start(self._settings.ops_addr, self._settings.ops_grpc_addr)
            _log.info(
                "watching over processes",
                processes=len(self._places),
                ops=_at(self._settings.ops_addr, ops_port),
                ops_grpc=_at(self._settings.ops_grpc_addr, ops_grpc_port),
            )
            with signals(self._stop):
                async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as group:
                    for place in self._places:
                        self._ops.expect(place.name)
                        group.create_task(self._keep(place, client), name=f"process {place.name}")
        finally:
            telling.cancel()
            await asyncio.wait({telling})
            await self._ops.close()
        if self._why:
            raise ChildError(self._why)

    def _stop(self) -> None:
        self._stopping.set()
        self._changed.set()
        for place in self._places:
            if place.child is not None:
                place.child.stop()

    def _give_up(self, why: str) -> None:
        self._why = self._why or why
        if not self._stopping.is_set():
            self._stop()

    async def _keep(self, place: _Place, client: aiohttp.ClientSession) -> None:
        """Has the process at one place, one after the other."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began, ended = loop.time(), "it left"
            try:
                await self._live_once(place, client)
            except (ChildError, OSError) as error:
                ended = str(error)
                if isinstance(error, FailedError) and not self._ever_up:
                    self._give_up(ended)  # what keeps one from starting keeps all
            if self._stopping.is_set():
                return
            place.failures += 1
            if all(each.failures >= GIVE_UP_AFTER for each in self._places):
                self._give_up(f"no process came to serve in {GIVE_UP_AFTER} attempts each; the last one: {ended}")
                return
            place.deaths = 1 if loop.time() - began >= LONG_LIFE_S else place.deaths + 1
            delay_s = min(FIRST_DELAY_S * 2 ** (place.deaths - 2), LONGEST_DELAY_S) if place.deaths > 1 else 0.0
            _log.error("a process ended; another takes its place", process=place.name, why=ended, after_s=delay_s)
            self._ops.restarted(place.name)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _live_once(self, place: _Place, client: aiohttp.ClientSession) -> None:
        async with self._open() as child:
            child.changed = lambda: self._note(child)
            place.child, place.answers = child, True
            if self._stopping.is_set():
                child.stop()
            watching = asyncio.create_task(self._watch(place, child, client))
            try:
                await child.run()
            finally:
                watching.cancel()
                await asyncio.wait({watching})
                place.child = None
                self._changed.set()

    def _note(self, child: Child) -> None:
        self._ever_up = self._ever_up or child.up is not None
        if child.ready:
            for place in self._places:
                place.failures = 0
        self._changed.set()

    async def _watch(self, place: _Place, child: Child, client: aiohttp.ClientSession) -> None:
        """Kills the process when it does not come to listen, or stops answering."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + START_WITHIN_S
        while child.up is None:
            if loop.time() > limit:
                child.kill(f"did not listen within {START_WITHIN_S:.0f} s")
                return
            await asyncio.sleep(self._hung_after_s / 15)
        answered = loop.time()
        while not child.leaving:  # leaving has a bound of its own
            answers = await self._asked(child.up.ops_addr, client)
            if answers is not place.answers:
                place.answers = answers
                self._changed.set()
            if answers:
                answered = loop.time()
            elif loop.time() - answered > self._hung_after_s:
                child.kill(f"did not answer for {self._hung_after_s:.0f} s")
                return
            await asyncio.sleep(self._hung_after_s / 15)

    async def _asked(self, address: str, client: aiohttp.ClientSession) -> bool:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=self._hung_after_s / 5)
            async with client.get(f"http://{address}/livez", timeout=timeout) as answer:
                return answer.status == 200
        return False

    async def _tell(self) -> None:
        """Keeps gRPC health equal to what is known."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._ops.tell([name for told in self._up().values() for name in told.services])

    def _up(self) -> dict[str, Up]:
        up = ((place.name, place.child.up) for place in self._places if place.child is not None)
        return {name: told for name, told in up if told is not None}

    def _live(self) -> bool:
        running = [place for place in self._places if place.child is not None]
        return bool(running) and all(place.answers for place in running)

    def _ready(self) -> bool:
        if self._stopping.is_set():
            return False
        served = ((place, place.child) for place in self._places if place.child is not None)
        return any(place.answers and child.ready and not child.leaving for place, child in served)

    def _members(self) -> dict[str, str]:
        return {name: told.ops_addr for name, told in self._up().items()}


def _at(address: str, port: int) -> str:
    return join_address(split_address(address)[0], port)
