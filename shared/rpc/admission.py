"""The process's front door: so many calls at once, and none while it drains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import uniform
from time import monotonic
from typing import Final

from shared.errors import DomainError, Reason
from shared.observe.metrics import Metrics
from shared.rpc.buckets import Buckets
from shared.rpc.context import CallContext
from shared.rpc.routes import Body, Endpoint, MethodSpec, Middleware

DEFAULT_MAX_IN_FLIGHT: Final = 512
MAX_STANDARD_STREAMS: Final = 1000
"""Streams of standard services at once, such as health watches. They last for ever and need no credential."""
RETRY_AFTER_MS: Final = 100
HELD_S: Final = 3.0
FREE_REFUSALS_PER_S: Final = 100
MAX_HELD: Final = 8192
"""Refusals kept back at once; beyond that they go out at once."""
ANSWER_S: Final = 0.05
"""What is left of the time when a refusal that was kept back goes out."""


def draining() -> DomainError:
    """DRAINING: this process leaves, another one serves the call."""
    return DomainError(Reason.DRAINING, "the process is shutting down; another one will serve the call")


class AdmissionGate:
    """Counts the calls in flight. A write that outlives its caller keeps its place until it ends."""

    def __init__(self, max_in_flight: int = DEFAULT_MAX_IN_FLIGHT) -> None:
        self._max = max_in_flight
        self._in_flight = 0
        self._draining = False

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def drain(self) -> None:
        """From now on every new call is refused with DRAINING."""
        self._draining = True

    @property
    def open(self) -> bool:
        """Whether a call would be let in."""
        return self._in_flight < self._max and not self._draining

    def enter(self) -> None:
        """Takes a place.

        Raises:
            DomainError: DRAINING, or OVERLOADED with a time to wait.
        """
        if self._draining:
            raise draining()
        if self._in_flight >= self._max:
            raise DomainError(
                Reason.OVERLOADED,
                f"{self._max} calls are in flight already",
                retry_after_ms=RETRY_AFTER_MS,
            )
        self._in_flight += 1

    def leave(self) -> None:
        """Gives a place back."""
        self._in_flight -= 1


def admission(gate: AdmissionGate, metrics: Metrics) -> Middleware:
    """Lets a call in or refuses it before any other work.

    A health check always gets in; health watches have a gate of their own.
    """
    standard_streams, waiting_room = AdmissionGate(MAX_STANDARD_STREAMS), WaitingRoom()

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        if not spec.anonymous:
            return _through(gate, metrics, spec, inner, waiting_room)
        return _through(standard_streams, metrics, spec, inner, waiting_room) if spec.kind.streams_responses else inner

    return layer


def _through(
    gate: AdmissionGate, metrics: Metrics, spec: MethodSpec, inner: Endpoint, waiting_room: WaitingRoom
) -> Endpoint:
    recorder = metrics.recorder(spec.service, spec.name)

    async def call(context: CallContext, body: Body) -> bytes | None:
        try:
            gate.enter()
        except DomainError as error:
            recorder.refused(error.code.name, error.reason.value)
            raise
        try:
            return await inner(context, body)
        except DomainError as error:
            if not error.caller:
                raise
            refusal = error
        finally:
            if context.outliving is None:
                gate.leave()
            else:
                context.outliving.add_done_callback(lambda _: gate.leave())
        await waiting_room.hold(refusal.caller, context.remaining_s() - ANSWER_S)
        raise refusal

    return call


class WaitingRoom:
    """Where refusals of callers that call too much are kept back, when they come thick.

    A caller who is answered at once and does not wait asks again at once, and refusing costs the process time that is
    others'. Kept back, a refusal holds no place.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, most: int = MAX_HELD) -> None:
        self._room = most
        self._refused = Buckets(clock)

    async def hold(self, caller: str, most_s: float) -> None:
        """Waits `HELD_S`, at most `most_s`, where the caller was refused `FREE_REFUSALS_PER_S` times within a second."""
        if not self._refused.take(caller, per_s=FREE_REFUSALS_PER_S, burst=FREE_REFUSALS_PER_S):
            return
        if most_s <= 0 or self._room <= 0:
            return
        self._room -= 1
        try:
            # What came together does not go together: to answer it all at once would take the thread from others.
            await asyncio.sleep(min(HELD_S, most_s) * uniform(0.5, 1.0))  # noqa: S311 - only spreads
        finally:
            self._room += 1
