"""One call's way out through ASGI: headers, messages, and the status in trailers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]

from shared.rpc.context import Metadata
from shared.rpc.envoy.frames import frame
from shared.rpc.envoy.headers import (
    CONTENT_TYPE,
    STATUS_OK,
    HeaderList,
    RawHeaders,
    certificate_uris,
    metadata_headers,
    status_headers,
)
from shared.rpc.tls import peer_identity

Event: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

_ANSWER: Final[Event] = {
    "type": "http.response.start", "status": 200, "headers": [CONTENT_TYPE], "trailers": True
}  # fmt: skip
_TRAILERS_OK: Final[Event] = {"type": "http.response.trailers", "headers": [STATUS_OK], "more_trailers": False}


class AsgiWire:
    """Made for each call. The futures that `send` returns are never cancelled.

    Attributes:
        gone: Whether the caller has left, so that nothing can reach it.
        started: Whether a part of the response was sent.
    """

    __slots__ = ("_client", "_headers", "_inbound", "_send", "gone", "started")

    def __init__(self, client: tuple[str, int] | None, send: Send, inbound: RawHeaders = ()) -> None:
        self._client = client
        self._inbound = inbound
        self._send = send
        self._headers: HeaderList | None = None
        self.started = False
        self.gone = False

    def peer(self) -> str:
        if self._client is None:
            return "unknown"
        host, port = self._client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def peer_identity(self) -> str:
        return peer_identity(certificate_uris(self._inbound))

    def left(self) -> asyncio.CancelledError:
        """Notes that the caller has left, and makes what ends its handler."""
        self.gone = True
        return asyncio.CancelledError("the caller has left")

    def add_header(self, name: bytes, value: bytes) -> None:
        """Adds a header to the response, which has not begun."""
        self._headers = [*(self._headers or [CONTENT_TYPE]), (name, value)]

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        if self.started:
            raise RuntimeError("initial metadata was sent already")
        for name, value in metadata_headers(metadata):
            self.add_header(name, value)
        await self._stream(b"")

    async def send(self, message: bytes) -> None:
        await self._stream(frame(message))

    async def finish(self, answer: bytes | None, trailing: Metadata) -> None:
        """Ends a call well, with its answer unless it has streamed its responses."""
        if answer is None and not self.started:
            await self._end_in_headers([STATUS_OK, *metadata_headers(trailing)])
            return
        try:
            if not self.started:  # as `_start`, in place: every unary call pays for a coroutine more
                self.started = True
                await self._send(_ANSWER if self._headers is None else {**_ANSWER, "headers": self._headers})
            body = b"" if answer is None else frame(answer)
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
            await self._send(_trailers([STATUS_OK, *metadata_headers(trailing)]) if trailing else _TRAILERS_OK)
        except OSError as error:  # the server's word for a caller that has left
            self._lose(error)

    async def refuse(self, status: status_pb2.Status, trailing: Metadata) -> None:
        """Ends a call with an error."""
        headers = [*status_headers(status), *metadata_headers(trailing)]
        if not self.started:
            await self._end_in_headers(headers)
            return
        try:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            await self._send(_trailers(headers))
        except OSError as error:
            self._lose(error)

    async def refuse_http(self, code: int) -> None:
        """Ends a request that is not gRPC."""
        self._headers = [(b"content-length", b"0")]
        await self._end_in_headers([], code)

    async def _end_in_headers(self, more: HeaderList, code: int = 200) -> None:
        """The whole response in one block of headers, as gRPC wants it where there is no message."""
        self.started = True
        headers = [*(self._headers or [CONTENT_TYPE]), *more]
        try:
            await self._send({"type": "http.response.start", "status": code, "headers": headers})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError as error:
            self._lose(error)

    async def _start(self) -> None:
        if self.started:
            return
        self.started = True
        await self._send(_ANSWER if self._headers is None else {**_ANSWER, "headers": self._headers})

    async def _stream(self, body: bytes) -> None:
        """Sends a part of a response that goes on, and waits until Envoy has taken it."""
        if self.gone:
            raise self.left()
        try:
            await self._start()
            event: Event = {"type": "http.response.body", "body": body, "more_body": True}
            sending = asyncio.ensure_future(self._send(event))
            try:
                await asyncio.shield(sending)
            except asyncio.CancelledError:
                sending.add_done_callback(self._sent_too_late)
                raise
        except OSError as error:
            self._lose(error)
            raise self.left() from None

    def _sent_too_late(self, sending: asyncio.Future[None]) -> None:
        """Takes note of how a send ended that nobody waits for any more; asyncio would log it otherwise."""
        if not sending.cancelled() and isinstance(error := sending.exception(), OSError):
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Notes that the caller has left, by the server's word for it.

        pyvoy raises one and the same exception each time: what a traceback holds of each call would never be let go.
        """
        self.gone = True
        error.__traceback__ = None


def _trailers(headers: HeaderList) -> Event:
    return {"type": "http.response.trailers", "headers": headers, "more_trailers": False}
