"""The service behind the conformance suite, the same on every transport: a request says what its handler does."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from shared.errors import DomainError, Reason
from shared.rpc.context import CallContext, Metadata
from shared.tenancy import Mode, Principal, PrincipalKind
from tests.helpers.echo import NO_RATE
from tests.protos.lictor_test.v1 import test_service_pb2 as pb

CREDENTIAL: Final = "Bearer conformance"
_Named = TypeVar("_Named", pb.InputRequest, pb.OutputRequest)


class ConformanceAuthenticator:
    """Knows one credential."""

    async def authenticate(self, authorization: str | None, peer_identity: str, *, in_grace: bool = False) -> Principal:
        del peer_identity
        if authorization != CREDENTIAL:
            raise DomainError(Reason.CREDENTIALS_INVALID, "the credential is absent or unknown")
        scopes = frozenset({"test:read", "test:write"})
        return Principal(PrincipalKind.SECRET_KEY, "acc_1", Mode.TEST, "key_1", scopes, None, NO_RATE)


class TestServicer:
    """Every method of `lictor.test.v1.TestService`."""

    __test__ = False

    def __init__(self) -> None:
        self._named: dict[str, pb.RecallResponse] = {}

    async def Empty(self, _request: pb.EmptyRequest, _context: CallContext) -> pb.EmptyResponse:
        return pb.EmptyResponse()

    async def Unary(self, request: pb.UnaryRequest, context: CallContext) -> pb.UnaryResponse:
        with self._known(request.behaviour):
            remaining_s = context.time_remaining()
            await _begin(request.behaviour, context)
            await _end(request.behaviour, context)
            return pb.UnaryResponse(
                payload=bytes(request.answer_bytes) or request.payload,
                metadata=entries(context.invocation_metadata()),
                remaining_ms=-1 if remaining_s is None else remaining_s * 1000,
                peer=context.peer(),
                identity=context.peer_identity(),
            )

    Hot = Unary
    Write = Unary

    async def Output(self, request: pb.OutputRequest, context: CallContext) -> AsyncIterator[pb.OutputResponse]:
        with self._known(request.behaviour) as known:
            await _begin(request.behaviour, context)
            async for response in _parts(request, known):
                yield response
            await _end(request.behaviour, context)

    async def Input(self, requests: AsyncIterator[pb.InputRequest], context: CallContext) -> pb.InputResponse:
        """The behaviour of each request is done before the next one is read."""
        answer = pb.InputResponse()
        async with aclosing(self._read(requests)) as reading:
            async for request, _ in reading:
                answer.messages += 1
                answer.bytes += len(request.payload)
                await _begin(request.behaviour, context)
                await _end(request.behaviour, context)
        return answer

    async def Duplex(
        self, requests: AsyncIterator[pb.OutputRequest], context: CallContext
    ) -> AsyncIterator[pb.OutputResponse]:
        async with aclosing(self._read(requests)) as reading:
            async for request, known in reading:
                await _begin(request.behaviour, context)
                async for response in _parts(request, known):
                    yield response
                await _end(request.behaviour, context)

    async def Recall(self, request: pb.RecallRequest, _context: CallContext) -> pb.RecallResponse:
        answer = pb.RecallResponse(resident_bytes=_resident_bytes())
        answer.MergeFrom(self._named.get(request.name, pb.RecallResponse()))
        return answer

    async def _read(self, requests: AsyncIterator[_Named]) -> AsyncGenerator[tuple[_Named, pb.RecallResponse]]:
        """Each request of a stream, with what is known of the call; the first request names it."""
        async for first in requests:
            with self._known(first.behaviour) as known:
                known.read += 1
                yield first, known
                async for request in requests:
                    known.read += 1
                    yield request, known

    @contextmanager
    def _known(self, behaviour: pb.Behaviour) -> Generator[pb.RecallResponse]:
        """Notes how a named call goes."""
        known = pb.RecallResponse(began=True)
        if behaviour.name:
            self._named[behaviour.name] = known
        try:
            yield known
        except (asyncio.CancelledError, GeneratorExit):
            known.cancelled = True
            raise
        finally:
            known.ended = not known.cancelled


def entries(metadata: Metadata) -> list[pb.Entry]:
    """Metadata as messages."""
    return [
        pb.Entry(key=key, binary=value) if isinstance(value, bytes) else pb.Entry(key=key, text=value)
        for key, value in metadata
    ]


def metadata(found: Iterable[pb.Entry]) -> Metadata:
    """Messages as metadata."""
    return tuple((entry.key, entry.binary if entry.WhichOneof("value") == "binary" else entry.text) for entry in found)


async def _parts(request: pb.OutputRequest, known: pb.RecallResponse) -> AsyncIterator[pb.OutputResponse]:
    for part in request.parts:
        response = pb.OutputResponse(payload=bytes(part.bytes) or request.payload)
        for _ in range(part.count):
            if part.pause_ms:
                await asyncio.sleep(part.pause_ms / 1000)
            yield response
            known.sent += 1


async def _begin(behaviour: pb.Behaviour, context: CallContext) -> None:
    if behaviour.initial_metadata:
        await context.send_initial_metadata(metadata(behaviour.initial_metadata))
    if behaviour.trailing_metadata:
        context.set_trailing_metadata(metadata(behaviour.trailing_metadata))
    if behaviour.sleep_ms:
        await asyncio.sleep(behaviour.sleep_ms / 1000)


async def _end(behaviour: pb.Behaviour, context: CallContext) -> None:
    if behaviour.reason:
        raise DomainError(Reason(behaviour.reason), behaviour.message, metadata={"id": "res_1"}, retry_after_ms=1500)
    if behaviour.code:
        await context.abort(behaviour.code, behaviour.message)


def _resident_bytes() -> int:
    """Memory in use; on systems without procfs the most that was ever in use."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
