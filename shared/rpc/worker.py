"""A process that serves because another one started it: it hears and tells over `Control`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from shared.observe.logging import get_logger
from shared.observe.metrics import Metrics
from shared.rpc.control import CONTROL_FD, Control, Up, Word
from shared.rpc.grpcio import GrpcioTransport
from shared.rpc.runtime import Bound, Host, Lifecycle, Transport
from shared.rpc.signals import signals

_log = get_logger(__name__)


class Telling:
    """The part of a `Host` that tells the process that started this one.

    Args:
        control: The way to that process.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    def up(self, bound: Bound, services: Sequence[str]) -> None:
        self._control.say(Word.UP, Up(bound.ops_addr, services).said())

    def ready(self, ready: bool) -> None:
        self._control.say(Word.READY if ready else Word.UNREADY)


class WorkerHost(Telling):
    """One of several processes of our own on one port: `grpc.aio` listens, `Control` tells.

    A signal that was sent to it alone makes it leave in order, too; another one takes its place.
    """

    name = "grpcio"

    def transport(self, metrics: Metrics) -> Transport:
        return GrpcioTransport(metrics, share_port=True)

    @asynccontextmanager
    async def told(self, life: Lifecycle) -> AsyncGenerator[None]:
        listening = asyncio.create_task(self._listen(life), name="control")
        try:
            with signals(life.ask):
                yield
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def _listen(self, life: Lifecycle) -> None:
        while (heard := await self._control.hear()) is not None:
            if heard[0] is Word.STOP:
                life.ask()
        _log.error("the process that started this one is gone; leaving")
        life.stop.set()
        life.hurry.set()


async def open_control() -> Control:
    """This process's end."""
    return await Control.over(socket.socket(fileno=int(os.environ.pop(CONTROL_FD))))


async def report(serving: Awaitable[None], control: Control, expected: tuple[type[Exception], ...]) -> None:
    """Serves, and says how that ended. Of the `expected` errors the message is enough."""
    try:
        await serving
    except expected as error:
        control.say(Word.FAILED, str(error))
    except Exception as error:  # noqa: BLE001 - the end of the line: whatever it is goes to the log and ends the process
        _log.error("serving failed", exc_info=error)
        control.say(Word.FAILED, f"{type(error).__name__}, see the log")
    else:
        control.say(Word.LEFT)


async def run_worker(serve: Callable[[Host], Awaitable[None]], expected: tuple[type[Exception], ...]) -> None:
    """Serves as one of several processes, until told to leave.

    Args:
        serve: Builds the services and serves them under a host.
        expected: Errors whose message is enough.
    """
    control = await open_control()
    try:
        await report(serve(WorkerHost(control)), control, expected)
    finally:
        control.close()
