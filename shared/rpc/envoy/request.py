"""One call's way in through ASGI: its messages, and word of a caller that gave up.

Two rules come from the server underneath (pyvoy). A future that its `receive()` returned is never cancelled: the server
sets its result all the same, and complains. And once a request is complete, `receive()` answers at once instead of
waiting for the caller to leave: so a call that runs long is asked after now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

from shared.errors import Code
from shared.rpc.context import CallAbortedError
from shared.rpc.deadlines import DEFAULT_S
from shared.rpc.envoy.frames import ACCEPTED_ENCODINGS, IDENTITY, FrameReader, whole_message
from shared.rpc.envoy.watch import Watch
from shared.rpc.envoy.wire import AsgiWire, Event

Receive: TypeAlias = Callable[[], Awaitable[Event]]

FIRST_LOOK_S: Final = 0.02
LOOK_S: Final = 1.0
"""A call is asked after for the first time after `FIRST_LOOK_S`, then after twice as long, up to `LOOK_S`."""
READ_AHEAD_BYTES: Final = 1024 * 1024
"""How much of a request stream may wait for its handler before no more is read."""
MESSAGES_A_TURN: Final = 64
"""After so many messages that were there already, other calls get their turn."""


class Request:
    """Made for each call.

    Args:
        receive: The server's side.
        wire: The way out, which is told that the caller has left.
        encoding: The request's `grpc-encoding`.
        watch: Looks after calls that take long.
    """

    __slots__ = ("_delay_s", "_encoding", "_receive", "_task", "_too_late", "_watch", "_wire")

    def __init__(self, receive: Receive, wire: AsgiWire, encoding: str, watch: Watch) -> None:
        self._receive = receive
        self._wire = wire
        self._encoding = encoding
        self._watch = watch
        self._task: asyncio.Task[Any] | None = None
        self._too_late: Callable[[], None] | None = None
        self._delay_s = FIRST_LOOK_S

    def awaited(self, within_s: float | None, too_late: Callable[[], None]) -> Awaitable[Event]:
        """Asks for the first part of a request that is no stream, until `arrived`.

        Args:
            within_s: The time that the call has; management's default when it named none.
            too_late: Called when the request is not here by then, give or take a tick of the watch. It answers, and the
                call then reads that it is over.
        """
        self._too_late = too_late
        self._watch.add(self, DEFAULT_S if within_s is None else within_s)
        return self._receive()

    def arrived(self) -> None:
        """The request is here, or the call is over."""
        self._too_late = None
        self._watch.discard(self)

    def whole(self, first: Event) -> bytes | None:
        """The message of a request that came in one part and as it is, as nearly all do; otherwise None."""
        if self._encoding == IDENTITY and not first.get("more_body", False):
            return whole_message(first.get("body", b""))
        return None

    async def in_parts(self, event: Event) -> bytes:
        """The one message of any other request that is no stream, from its first part on.

        Raises:
            DomainError, CallAbortedError: The request is not one message.
            asyncio.CancelledError: The caller has left.
        """
        reader = self._reader()
        message: bytes | None = None
        while True:
            if event["type"] == "http.disconnect":
                raise self._wire.left()
            reader.feed(event.get("body", b""))
            if message is None:
                message = reader.next()
            if message is not None and reader.waiting_bytes:
                raise CallAbortedError(Code.INTERNAL, "more than one message in a call that takes one")
            if not event.get("more_body", False):
                break
            event = await self._receive()
        reader.finish()
        if message is None:
            raise CallAbortedError(Code.INTERNAL, "no message in a call that takes one")
        return message

    def messages(self) -> AsyncIterator[bytes]:
        """The messages of a request stream; to be called once, by the task that serves it."""
        return _Inbox(self, self._reader())

    def _reader(self) -> FrameReader:
        try:
            return FrameReader(self._encoding)
        except CallAbortedError:
            self._wire.add_header(b"grpc-accept-encoding", ACCEPTED_ENCODINGS.encode())
            raise

    def guard(self, task: asyncio.Task[Any]) -> None:
        """Cancels the task when the caller leaves, until `release`."""
        self._task = task

    def release(self) -> None:
        """The handler is done: whether the caller leaves is nothing to it any more."""
        self._task = None
        self._watch.discard(self)

    def look_now_and_then(self) -> None:
        """To be called once the request is complete."""
        self._watch.add(self, self._delay_s)

    def look(self) -> None:
        """For the watch: the request is too late, or the server is asked whether the caller is still there."""
        if self._too_late is not None:
            self._too_late()
        elif self._task is not None:
            self.ask(self._looked)

    def ask(self, answered: Callable[[asyncio.Future[Event]], None]) -> None:
        """Asks the server for what comes next, and leaves its future alone."""
        asyncio.ensure_future(self._receive()).add_done_callback(answered)

    def event(self, future: asyncio.Future[Event]) -> Event | None:
        """What the server said; None when the caller has left, which ends the handler."""
        if not future.cancelled() and future.exception() is None:
            event = future.result()
            if event["type"] != "http.disconnect":
                return event
        if self._task is not None:
            self._wire.left()
            self._task.cancel()
        return None

    def _looked(self, future: asyncio.Future[Event]) -> None:
        if self._task is not None and self.event(future) is not None:
            self._delay_s = min(self._delay_s * 2, LOOK_S)
            self.look_now_and_then()


class _Inbox(AsyncIterator[bytes]):
    """The messages of a request stream.

    It is read ahead, for speed and because a caller that leaves is noticed by reading, but only so far: then nobody
    takes what arrives, and Envoy's flow control holds the caller back.
    """

    def __init__(self, request: Request, reader: FrameReader) -> None:
        self._request = request
        self._reader = reader
        self._asking = False
        self._ended = False
        self._taken = 0
        self._news = asyncio.Event()
        self._ask()

    async def __anext__(self) -> bytes:
        while True:
            message = self._reader.next()
            if message is not None:
                if self._reader.waiting_bytes < READ_AHEAD_BYTES:
                    self._ask()
                self._taken += 1
                if self._taken % MESSAGES_A_TURN == 0:
                    await asyncio.sleep(0)
                return message
            if self._ended:
                self._reader.finish()
                raise StopAsyncIteration
            self._ask()
            self._news.clear()
            await self._news.wait()

    def _ask(self) -> None:
        if not self._asking and not self._ended:
            self._asking = True
            self._request.ask(self._got)

    def _got(self, future: asyncio.Future[Event]) -> None:
        event = self._request.event(future)
        if event is None:
            return
        self._asking = False
        self._reader.feed(event.get("body", b""))
        self._ended = not event.get("more_body", False)
        self._news.set()
        if self._ended:
            self._request.look_now_and_then()
        elif self._reader.waiting_bytes < READ_AHEAD_BYTES:
            self._ask()
