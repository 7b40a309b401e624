"""The same Envoy with a bare ASGI application that answers every call with nothing: what hosting Python costs alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

from shared.rpc.envoy.bootstrap import EnvoySettings, write_bootstrap
from shared.rpc.envoy.program import command, environment

Event = MutableMapping[str, Any]

_START: Final[Event] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc")],
    "trailers": True,
}
_BODY: Final[Event] = {"type": "http.response.body", "body": b"\0\0\0\0\0", "more_body": False}
_TRAILERS: Final[Event] = {
    "type": "http.response.trailers",
    "headers": [(b"grpc-status", b"0")],
    "more_trailers": False,
}


async def app(scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send(_BODY)
    await send(_TRAILERS)


if __name__ == "__main__":
    # Envoy takes this process's place: there is nothing here that would need a parent to leave in order.
    folder = Path(tempfile.mkdtemp(prefix="lictor-bench-", dir=Path.cwd()))
    write_bootstrap(folder, EnvoySettings(os.environ["LICTOR_API_ADDR"], "tests.bench.empty_bare:app", json_logs=False))
    line = command(folder)
    os.execve(line[0], line, environment())
