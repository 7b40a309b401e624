"""The calls that a transport serves at the moment, and how they come to their end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from shared.rpc.admission import draining
from shared.rpc.context import CallContext
from shared.rpc.routes import Body, Endpoint, Route


class LiveCalls:
    """Counts calls, and tells those that would last for ever that their transport leaves."""

    def __init__(self) -> None:
        self._count = 0
        self._idle: asyncio.Event | None = None
        self._leaving = asyncio.Event()

    def begin(self) -> None:
        """A call arrived."""
        self._count += 1

    def end(self) -> None:
        """A call was answered, or its caller is gone."""
        self._count -= 1
        if self._count == 0 and self._idle is not None:
            self._idle.set()

    def leave(self) -> None:
        """Ends what would last for ever, such as a health watch, with DRAINING."""
        self._leaving.set()

    async def idle(self, within_s: float) -> bool:
        """Waits until no call is live; false when some still are after `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._count:
                    self._idle = asyncio.Event()
                    await self._idle.wait()
        return self._count == 0

    def endpoint(self, route: Route) -> Endpoint:
        """The route's endpoint; one that might last for ever ends when the transport leaves."""
        endless = route.spec.rules.endless or (route.spec.anonymous and route.spec.kind.streams_responses)
        return self._cut_short(route.call) if endless else route.call

    def _cut_short(self, call: Endpoint) -> Endpoint:
        async def until_leaving(context: CallContext, body: Body) -> bytes | None:
            serving = asyncio.ensure_future(call(context, body))
            leaving = asyncio.create_task(self._leaving.wait())
            try:
                await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                if not serving.done():
                    serving.cancel()
                    await asyncio.wait({serving})
            if serving.cancelled():
                raise draining()
            return serving.result()

        return until_leaving
