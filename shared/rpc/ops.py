"""The ops listener: `/livez`, `/readyz` and `/metrics` over HTTP. No TLS and no credential: keep it on loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

from shared.rpc.addresses import split_address


class OpsListener:
    """Answers probes and scrapes. `/livez` proves that the event loop turns; `/readyz` asks `ready`.

    Args:
        exposition: The metrics as text, and its content type.
        live: What else `/livez` asks.
    """

    def __init__(
        self, exposition: Callable[[], Awaitable[tuple[bytes, str]]], live: Callable[[], bool] = lambda: True
    ) -> None:
        self._make_exposition = exposition
        self._live = live
        self._ready: Callable[[], bool] = lambda: False
        self._runner: web.AppRunner | None = None

    async def start(self, address: str, ready: Callable[[], bool]) -> int:
        """Listens on `host:port` (port 0: any free one) and returns the port."""
        self._ready = ready
        host, port = split_address(address)
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._exposition)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, host, port, reuse_port=False).start()
        return cast("tuple[str, int]", runner.addresses[0])[1]

    async def close(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._live() else web.Response(text="not live\n", status=503)

    async def _readyz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ready\n") if self._ready() else web.Response(text="not ready\n", status=503)

    async def _exposition(self, _request: web.Request) -> web.Response:
        body, content_type = await self._make_exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})
