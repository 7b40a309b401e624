"""This process's share of what all processes together may do: one by the number of them that live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from shared.errors import DomainError
from shared.observe.logging import get_logger

_log = get_logger(__name__)


class Share:
    """How many processes live, as this one knows it: itself alone until it has asked."""

    def __init__(self) -> None:
        self.live = 1

    @asynccontextmanager
    async def kept(
        self, count: Callable[[], Awaitable[int]], leave: Callable[[], Awaitable[None]], every_s: float
    ) -> AsyncGenerator[None]:
        """Asks at once, and again every so often while the block runs. While nobody answers, the last answer stands.

        Args:
            count: Says that this process lives, and answers how many do.
            leave: Says in the end that it no longer does.
            every_s: Seconds between two questions.
        """
        await self._ask(count)
        asking = asyncio.create_task(self._keep(count, every_s), name="share of the rates")
        try:
            yield
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            try:
                await leave()
            except DomainError as error:
                _log.warning("process row left behind", reason=error.reason.value)

    async def _keep(self, count: Callable[[], Awaitable[int]], every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self._ask(count)

    async def _ask(self, count: Callable[[], Awaitable[int]]) -> None:
        try:
            live = max(1, await count())
        except DomainError as error:
            _log.warning("processes not counted", reason=error.reason.value, live=self.live)
            return
        except Exception as error:  # noqa: BLE001 - the next question may go well, and nobody else would ask it
            _log.error("processes not counted", live=self.live, exc_info=error)
            return
        if live != self.live:
            _log.info("share of the rates changed", live=live, before=self.live)
        self.live = live
