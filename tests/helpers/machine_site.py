"""Four processes that serve machines alone, on one record, and one that does the rest: for races between processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import grpc.aio
from lictor.machine.v1 import activation_service_pb2 as activation
from lictor.machine.v1 import activation_service_pb2_grpc as activation_grpc

from shared.embedded.ports import Listen, free_listen
from shared.embedded.postgres import EmbeddedPostgres
from shared.embedded.process import GuardedProcess
from shared.rpc.status import DETAILS_KEY
from tests.helpers.echo import refusal
from tests.helpers.serving import Served, ended, launch, serving, settled
from tests.helpers.suite import World, bearer

PROCESSES: Final = 4
LOST: Final = "no answer"
_WITHIN_S: Final = 30.0
AGAIN_AFTER_S: Final = 0.1

A = TypeVar("A")


async def answered(call: Callable[[], Awaitable[A]]) -> A | str:
    """The answer; the reason of a refusal; LOST where the process did not answer. Who is told that there is too much to do, as a
    crowd may be on a busy machine, comes again."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if DETAILS_KEY not in dict(error.trailing_metadata() or ()):
                return LOST
            reason = refusal(error).reason
            if reason != "OVERLOADED":
                return reason
        await asyncio.sleep(AGAIN_AFTER_S)


@dataclass
class Member:
    """A `lictor serve` of the machine service alone. Its address stays when it is killed and started again."""

    folder: Path
    environment: dict[str, str] = field(repr=False)
    listen: Listen
    process: GuardedProcess
    stub: activation_grpc.ActivationServiceAsyncStub

    async def ready(self) -> None:
        assert await settled(self.process, self.listen), self.process.log.read_text()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        await asyncio.to_thread(self.process.stop)

    async def start_again(self) -> None:
        """Once it has ended; ready in the end."""
        await ended(self.process)
        await self.stop()
        self.process = launch(self.folder, self.listen, self.environment)
        await self.ready()

    async def activate(
        self, request: activation.ActivateMachineRequest, api_key: str
    ) -> activation.ActivateMachineResponse | str:
        """As `answered`."""
        return await answered(lambda: self.stub.ActivateMachine(request, timeout=_WITHIN_S, metadata=bearer(api_key)))

    async def beat(
        self, request: activation.HeartbeatProcessRequest, api_key: str
    ) -> activation.HeartbeatProcessResponse | str:
        """As `answered`."""
        return await answered(lambda: self.stub.HeartbeatProcess(request, timeout=_WITHIN_S, metadata=bearer(api_key)))


@dataclass(frozen=True)
class Site:
    """The four, and the one."""

    rest: Served
    members: Sequence[Member]

    @asynccontextmanager
    async def unlimited(self) -> AsyncGenerator[World]:
        """A fresh account whose calls have no rate: processes that are killed count for half a minute as some that share it."""
        suite = self.rest.suite
        async with suite.world() as world, suite.client(suite.operator_key) as operator:
            await operator.accounts.update(world.account_id, limits={"management_calls_per_second": 0})
            yield world


@asynccontextmanager
async def machine_site(postgres: EmbeddedPostgres, folder: Path) -> AsyncGenerator[Site]:
    """All ready, while the block runs."""
    async with AsyncExitStack() as stack:
        rest = await stack.enter_async_context(serving(postgres, folder, "grpcio"))
        environment = {
            "LICTOR_TARGET": "machine",
            "LICTOR_TRANSPORT": "grpcio",
            "LICTOR_POSTGRES_DSN": postgres.dsn(),
            "LICTOR_ROOT_SECRET_FILE": str(rest.suite.settings.root_secret_file),
            "LICTOR_LICENSE_ADDR": rest.listen.api,
            "LICTOR_LAME_DUCK_S": "0",
            "LICTOR_LOG_FORMAT": "text",
            "LICTOR_LOG_LEVEL": "WARNING",  # a line for each of tens of thousands of refusals costs seconds
            "LICTOR_MACHINE_SWEEP_INTERVAL_S": "86400",
        }
        members: list[Member] = []
        for _ in range(PROCESSES):
            listen = free_listen("127.0.0.1")
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(listen.api))
            stub = activation_grpc.ActivationServiceStub(channel)
            member = Member(folder, environment, listen, launch(folder, listen, environment), stub)
            stack.push_async_callback(member.stop)
            members.append(member)
        await asyncio.gather(*(member.ready() for member in members))
        yield Site(rest, members)
