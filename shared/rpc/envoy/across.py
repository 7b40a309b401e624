"""A call that Envoy brings on one event loop and that is served on another.

Each listener of Envoy that holds the Python has an event loop and a thread of its own. What a service has in memory
belongs to one loop, so a call that comes in on the other is carried there, and its events back and forth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from shared.rpc.envoy.calls import EnvoyCalls, Scope
from shared.rpc.envoy.request import Receive
from shared.rpc.envoy.wire import Event, Send

T = TypeVar("T")


async def serve_across(
    calls: EnvoyCalls, home: asyncio.AbstractEventLoop, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serves a call of this loop on the loop `home`; to be awaited on this one."""
    here = asyncio.get_running_loop()

    def receive_there() -> Awaitable[Event]:
        return _carried(home, here, receive)

    def send_there(event: Event) -> Awaitable[None]:
        return _carried(home, here, lambda: send(event))

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(calls(scope, receive_there, send_there), home))


def _carried(
    home: asyncio.AbstractEventLoop, away: asyncio.AbstractEventLoop, ask: Callable[[], Awaitable[T]]
) -> asyncio.Future[T]:
    """Asks on the loop `away`, for somebody on the loop `home`, which runs this. What was asked is never cancelled."""
    answer: asyncio.Future[T] = home.create_future()

    def begin() -> None:
        asyncio.ensure_future(ask()).add_done_callback(answered)

    def answered(asked: asyncio.Future[T]) -> None:
        with suppress(RuntimeError):  # the loop that asked is gone, as the process ends
            home.call_soon_threadsafe(_hand_over, asked, answer)

    away.call_soon_threadsafe(begin)
    return answer


def _hand_over(asked: asyncio.Future[T], answer: asyncio.Future[T]) -> None:
    error = None if asked.cancelled() else asked.exception()  # looked at in any case: asyncio would log it otherwise
    if answer.done():
        return  # whoever asked was cancelled
    if asked.cancelled():
        answer.cancel()
    elif error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(asked.result())
