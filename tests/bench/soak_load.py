"""The load of a soak: calls that go well, are refused, run out of time, or are left by their caller in the middle."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import count
from typing import Final, assert_never

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue
from lictor.license.v1.license_service_pb2 import CreateLicenseRequest

from tests.helpers.echo import SERVICE

RESETS_PER_CONNECTION: Final = 12.0
"""A second. Envoy closes a connection whose client resets more than 33 for long (docs/transports.md)."""
MAX_IN_FLIGHT: Final = 64
"""Of each kind; a server that falls behind gets no more than these."""
SHORT_MS: Final = (1, 2, 3, 4, 5)
MESSAGES: Final = 3
"""What is read of a stream, or written to one, before it is broken."""
WITHIN_S: Final = 10.0
KNOWN: Final = grpc.aio.Metadata(("authorization", "Bearer all"))
UNKNOWN: Final = grpc.aio.Metadata(("authorization", "Bearer nobody"))


class Kind(StrEnum):
    """What a call is for."""

    OK = "ok"
    """A unary call that is answered."""
    REFUSED = "refused"
    """A unary call without a good credential, and one that its handler refuses, in turns."""
    CHAT = "chat"
    """A stream both ways, to its end."""
    SHORT = "short"
    """A unary call with 1 to 5 ms for 50 ms of work."""
    BROKEN = "broken"
    """A stream of answers that its caller leaves."""
    CUT = "cut"
    """A stream of requests that its caller leaves."""

    @property
    def resets(self) -> bool:
        """Whether its end is a reset by the client."""
        return self in (Kind.SHORT, Kind.BROKEN, Kind.CUT)


PER_SECOND: Final = {
    Kind.OK: 100.0, Kind.REFUSED: 40.0, Kind.CHAT: 20.0, Kind.SHORT: 40.0, Kind.BROKEN: 60.0, Kind.CUT: 30.0,
}  # fmt: skip


def connections(kinds: Iterable[Kind], scale: float) -> int:
    """How many connections keep the resets on each of them within bounds."""
    resets = sum(PER_SECOND[kind] * scale for kind in kinds if kind.resets)
    return max(2, math.ceil(resets / RESETS_PER_CONNECTION))


class SoakLoad:
    """Calls of several kinds at steady rates, in turns over several connections.

    Args:
        address: Where they go, host:port.
        kinds: Which.
        scale: How much of the usual rates.
    """

    def __init__(self, address: str, kinds: Sequence[Kind], scale: float) -> None:
        self._address = address
        self._kinds = kinds
        self._scale = scale
        self.made: Counter[Kind] = Counter()
        """Calls that have ended as they should."""
        self.failed: Counter[tuple[Kind, str]] = Counter()
        """Calls that have ended otherwise, and how."""

    async def run(self, until: asyncio.Event) -> None:
        """Calls until told to end, then waits for what is in flight."""
        # Channels with the same target would share a connection.
        own = (("grpc.use_local_subchannel_pool", 1),)
        channels = [grpc.aio.insecure_channel(self._address, own) for _ in range(connections(self._kinds, self._scale))]
        try:
            await asyncio.gather(*(self._pace(kind, channels, until) for kind in self._kinds))
        finally:
            await asyncio.gather(*(channel.close() for channel in channels))

    async def _pace(self, kind: Kind, channels: Sequence[grpc.aio.Channel], until: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        start, per_second = loop.time(), PER_SECOND[kind] * self._scale
        running: set[asyncio.Task[None]] = set()
        for number in count():
            if len(running) < MAX_IN_FLIGHT:
                task = asyncio.create_task(self._call(kind, channels[number % len(channels)], number))
                running.add(task)
                task.add_done_callback(running.discard)
            try:
                await asyncio.wait_for(until.wait(), max(start + (number + 1) / per_second - loop.time(), 0.0))
                break
            except TimeoutError:
                continue
        if running:
            await asyncio.wait(tuple(running))

    async def _call(self, kind: Kind, channel: grpc.aio.Channel, number: int) -> None:
        try:
            ended, wanted = await _ends(kind, channel, number)
        except grpc.aio.AioRpcError as error:
            self.failed[kind, f"{error.code().name}: {error.details()}"] += 1
            return
        except Exception as error:  # noqa: BLE001 - a call that failed in any other way is a failure, too
            self.failed[kind, f"{type(error).__name__}: {error}"] += 1
            return
        if ended == wanted:
            self.made[kind] += 1
        else:
            self.failed[kind, f"{ended} instead of {wanted}"] += 1


async def _ends(kind: Kind, channel: grpc.aio.Channel, number: int) -> tuple[str, str]:
    """Makes a call; how it ended and how it should have. AioRpcError for an end that no call should have."""
    match kind:
        case Kind.OK:
            answer = await _unary(channel, CreateLicenseRequest(display_name=str(number)))
            ends = answer.value, str(number)
        case Kind.REFUSED if number % 2:
            ends = await _code(_unary(channel, CreateLicenseRequest(), UNKNOWN)), "UNAUTHENTICATED"
        case Kind.REFUSED:
            ends = await _code(_unary(channel, CreateLicenseRequest(display_name="fail"))), "NOT_FOUND"
        case Kind.SHORT:
            within_s = SHORT_MS[number % len(SHORT_MS)] / 1000
            asked = CreateLicenseRequest(display_name="sleep:0.05")
            ends = await _code(_unary(channel, asked, within_s=within_s)), "DEADLINE_EXCEEDED"
        case Kind.CHAT:
            ends = await _chat(channel), "OK"
        case Kind.BROKEN:
            ends = await _break(channel), "CANCELLED"
        case Kind.CUT:
            ends = await _cut(channel), "CANCELLED"
        case _ as never:
            assert_never(never)
    return ends


def _unary(
    channel: grpc.aio.Channel,
    request: CreateLicenseRequest,
    metadata: grpc.aio.Metadata = KNOWN,
    within_s: float = WITHIN_S,
) -> grpc.aio.UnaryUnaryCall[CreateLicenseRequest, StringValue]:
    call = channel.unary_unary(
        f"/{SERVICE}/Open",
        request_serializer=CreateLicenseRequest.SerializeToString,
        response_deserializer=StringValue.FromString,
    )
    return call(request, timeout=within_s, metadata=metadata)


async def _code(call: grpc.aio.UnaryUnaryCall[CreateLicenseRequest, StringValue]) -> str:
    return (await call.code()).name


async def _chat(channel: grpc.aio.Channel) -> str:
    call = channel.stream_stream(
        f"/{SERVICE}/Chat",
        request_serializer=CreateLicenseRequest.SerializeToString,
        response_deserializer=StringValue.FromString,
    )(timeout=WITHIN_S, metadata=KNOWN)
    for n in range(MESSAGES):
        await call.write(CreateLicenseRequest(display_name=str(n)))
        answer = await call.read()
        if not isinstance(answer, StringValue) or answer.value != str(n):
            call.cancel()
            return f"{answer!r} for {n}"
    await call.done_writing()
    return (await call.code()).name


async def _break(channel: grpc.aio.Channel) -> str:
    call = channel.unary_stream(
        f"/{SERVICE}/Expand",
        request_serializer=CreateLicenseRequest.SerializeToString,
        response_deserializer=StringValue.FromString,
    )(CreateLicenseRequest(display_name="x"), timeout=WITHIN_S, metadata=KNOWN)
    for _ in range(MESSAGES):
        if not isinstance(await call.read(), StringValue):
            break
    call.cancel()
    return (await call.code()).name


async def _cut(channel: grpc.aio.Channel) -> str:
    call = channel.stream_unary(
        f"/{SERVICE}/Collect",
        request_serializer=CreateLicenseRequest.SerializeToString,
        response_deserializer=StringValue.FromString,
    )(timeout=WITHIN_S, metadata=KNOWN)
    for _ in range(MESSAGES):
        await call.write(CreateLicenseRequest(display_name="x"))
    call.cancel()
    return (await call.code()).name
