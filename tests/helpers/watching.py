"""A stream of licenses as a test reads it: raw, over the suite's channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from lictor.license.v1.validation_service_pb2 import (
    ValidateLicenseResponse,
    ValidationCode,
    WatchLicensesRequest,
    WatchLicensesResponse,
)
from lictor.license.v1.validation_service_pb2_grpc import ValidationServiceStub

from tests.helpers.suite import Suite, bearer

Kind = WatchLicensesResponse.Kind
WITHIN_S = 20.0
NOTHING: Mapping[str, ValidateLicenseResponse] = {}


class Watcher:
    """What a stream told so far.

    Attributes:
        held: How the licenses stand, as a caller would keep it.
        told: Every kind and license id, in order; the id is empty where there is none.
        token: The last resume token.
    """

    def __init__(self, call: Any, held: Mapping[str, ValidateLicenseResponse]) -> None:
        self.call = call
        self.held = dict(held)
        self.told: list[tuple[str, str]] = []
        self.token = ""
        self._named: set[str] = set()

    async def next(self) -> WatchLicensesResponse:
        """The next message, applied. AioRpcError when the stream ends."""
        async with asyncio.timeout(WITHIN_S):
            message = await self.call.read()
        if message is grpc.aio.EOF:
            raise AssertionError(f"the stream ended: {await self.call.code()} {await self.call.details()}")
        self._apply(message)
        return message

    def _apply(self, message: WatchLicensesResponse) -> None:
        kind = Kind.Name(message.kind)
        ids = [answer.license_id for answer in message.licenses] + list(message.deleted_license_ids)
        self.told.extend((kind, license_id) for license_id in ids or [""])
        self._named.update(ids)
        for answer in message.licenses:
            self.held[answer.license_id] = answer
        for license_id in message.deleted_license_ids:
            self.held.pop(license_id, None)
        if message.kind == Kind.SNAPSHOT_BEGUN:
            self._named.clear()
        if message.kind == Kind.SNAPSHOT_COMPLETE:
            self.held = {license_id: one for license_id, one in self.held.items() if license_id in self._named}
        if message.resume_token:
            self.token = message.resume_token

    async def until(self, seen: Callable[[], bool]) -> None:
        """Reads until something is so."""
        async with asyncio.timeout(WITHIN_S):
            while not seen():
                await self.next()

    async def until_kind(self, kind: Kind.ValueType) -> WatchLicensesResponse:
        """Reads up to a message of a kind."""
        async with asyncio.timeout(WITHIN_S):
            while (message := await self.next()).kind != kind:
                pass
        return message

    async def until_code(self, license_id: str, code: str) -> None:
        """Reads until a license has a code."""
        await self.until(lambda: self.code(license_id) == code)

    def code(self, license_id: str) -> str:
        """The code of a license; empty where it is not held."""
        held = self.held.get(license_id)
        return "" if held is None else ValidationCode.Code.Name(held.code)

    async def refused(self) -> None:
        """Reads to the end. Raises the AioRpcError that it ends with."""
        while True:
            await self.next()


@asynccontextmanager
async def watching(
    suite: Suite,
    key: str,
    *,
    complete: bool = True,
    held: Mapping[str, ValidateLicenseResponse] = NOTHING,
    channel: grpc.aio.Channel | None = None,
    **request: Any,
) -> AsyncGenerator[Watcher]:
    """A stream, cancelled in the end. With `complete` its first snapshot was read; `held` is what an earlier one told."""
    stub = ValidationServiceStub(channel) if channel is not None else suite.validation
    call = stub.WatchLicenses(
        WatchLicensesRequest(**request), metadata=grpc.aio.Metadata(*bearer(key)), wait_for_ready=True
    )
    watcher = Watcher(call, held)
    try:
        if complete:
            await watcher.until_kind(Kind.SNAPSHOT_COMPLETE)
        yield watcher
    finally:
        call.cancel()
