"""Waiting for effect: a call that takes a right away answers once no process can act on the old state any more.

The wait is outside everything else: a call that waits holds no connection, no place and no turn. It is counted from when
its answer is made, which is after the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from shared.clock import Clock
from shared.errors import Code, DomainError, Reason
from shared.freshness.tail import Tail
from shared.rpc.context import CallContext
from shared.rpc.deadlines import too_short
from shared.rpc.routes import Body, Effect, Endpoint, MethodSpec, Middleware

_RETRY_AFTER_MS: Final = 250


class EffectWaits:
    """How long a change takes to hold everywhere, by the lease that all processes have.

    Args:
        tail: Knows the lease.
        clock: For boot time.
        hint: Wakes the other processes, so that most know of the change long before. Nothing depends on it.
    """

    def __init__(self, tail: Tail, clock: Clock, hint: Callable[[], None] | None = None) -> None:
        self._tail = tail
        self._clock = clock
        self._hint = hint

    @property
    def wait_s(self) -> float:
        """Seconds, by what the process knows at this moment."""
        return self._tail.state.terms.wait_s

    async def hold(self) -> None:
        """Waits until what is committed by now holds everywhere.

        Raises:
            DomainError: RECORD_UNREACHABLE, where the record has been away for so long that nobody here knows how long
                leases are by now.
        """
        if self._hint is not None:
            self._hint()
        begun = self._clock.boottime()
        wait_s = await self._tail.wait_s()
        if wait_s is None:
            raise DomainError(
                Reason.RECORD_UNREACHABLE,
                "the change is made, and it is not known since when it holds everywhere; repeat it with the same request_id",
                retry_after_ms=_RETRY_AFTER_MS,
            )
        # Time itself is waited for, and a timer may be early.
        while (left_s := begun + wait_s - self._clock.boottime()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)


def effects(waits: EffectWaits | None) -> Middleware:
    """Lets answers of calls that take rights away wait; without `waits` nobody answers from memory, and nothing waits."""

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        if waits is None:
            return inner
        if spec.rules.effect is Effect.RESTRICTING:
            return _waiting(waits, inner)
        return _waiting_at_times(waits, inner) if spec.rules.may_evict else inner

    return layer


def _waiting(waits: EffectWaits, inner: Endpoint) -> Endpoint:
    async def call(context: CallContext, body: Body) -> bytes | None:
        context.effect_wait_s = waits.wait_s
        try:
            answer = await inner(context, body)
        except DomainError as error:
            if context.effect_wait_s and _may_hold_already(error):
                await waits.hold()
            raise
        if context.effect_wait_s:
            await waits.hold()
        return answer

    return call


def _waiting_at_times(waits: EffectWaits, inner: Endpoint) -> Endpoint:
    async def call(context: CallContext, body: Body) -> bytes | None:
        context.restricting_wait_s = waits.wait_s
        answer = await inner(context, body)
        if context.effect_wait_s:
            await waits.hold()
        return answer

    return call


def _may_hold_already(refusal: DomainError) -> bool:
    """Whether it may say that what was asked for is so already, since somebody else has just done it: whoever hears that
    may rely on it as on an answer."""
    return refusal.reason is Reason.STATE_TRANSITION_INVALID or refusal.code is Code.NOT_FOUND


def refuse_short(context: CallContext) -> None:
    """Refuses a call that has less time left than its effect takes, before anything is committed.

    Raises:
        DomainError: DEADLINE_TOO_SHORT.
    """
    if context.remaining_s() < context.effect_wait_s:
        required_ms = int(context.effect_wait_s * 1000) + 1
        raise too_short(
            required_ms, f"the change would hold everywhere {required_ms} ms after it is made; nothing was changed"
        )
