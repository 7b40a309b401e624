"""Every call ends in time. Reads are cancelled; writes never are: their caller is told, and they finish.

| call | deadline absent | kept back for the way home |
|---|---|---|
| management | 10 s | 20 ms |
| hot | 1 s | 2 ms |
| streamed response | none | 20 ms |

Never more than half of what the caller gave is kept back. gRPC rounds timeouts up on the wire, by as much as 1 %, so a
caller with seconds to spare may still time out by its own clock a moment before our answer.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final

from shared.errors import DomainError, Reason
from shared.observe.logging import get_logger
from shared.observe.metrics import CallRecorder, Metrics
from shared.rpc.context import CallContext
from shared.rpc.routes import Body, Endpoint, MethodSpec, Middleware, Serving
from shared.rpc.stepping import resume
from shared.tasks import TaskGroupTracker

DEFAULT_S: Final = 10.0
DEFAULT_HOT_S: Final = 1.0
SHAVE_S: Final = 0.020
SHAVE_HOT_S: Final = 0.002
REQUIRED_MS: Final = 5
WRITE_BOUND_S: Final = 30.0
"""How long a write may run, whatever its caller waits."""

_log = get_logger(__name__)


def too_short(required_ms: int, message: str) -> DomainError:
    """DEADLINE_TOO_SHORT with the milliseconds that the call needs at least."""
    return DomainError(Reason.DEADLINE_TOO_SHORT, message, metadata={"requiredMs": str(required_ms)})


def _ran_out(context: CallContext) -> DomainError:
    had_ms = math.ceil((context.deadline - context.arrived) * 1000)
    return too_short(had_ms, f"the call did not finish within the {had_ms} ms that it had")


def is_too_short(left_s: float | None) -> bool:
    """Whether less is left than any call needs."""
    return left_s is not None and left_s * 1000 < REQUIRED_MS


def set_deadline(spec: MethodSpec, context: CallContext) -> None:
    """Works out by when the handler must have answered.

    Raises:
        DomainError: DEADLINE_TOO_SHORT, when less than 5 ms are left.
    """
    hot = spec.rules.hot
    left = context.time_left_s
    if left is None:
        if spec.kind.streams_responses:
            context.deadline = math.inf
            return
        left = DEFAULT_HOT_S if hot else DEFAULT_S
    elif is_too_short(left):
        raise too_short(REQUIRED_MS, f"less than {REQUIRED_MS} ms were left when the call arrived")
    shave = SHAVE_HOT_S if hot else SHAVE_S
    context.deadline = context.arrived + max(left - shave, left / 2)


def deadlines(tasks: TaskGroupTracker, metrics: Metrics, write_bound_s: float = WRITE_BOUND_S) -> Middleware:
    """Bounds every call; `tasks` keeps the writes."""

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        recorder = metrics.recorder(spec.service, spec.name)
        shielded = spec.mutates and not spec.kind.streams_responses
        run = _write(spec, inner, tasks, recorder, write_bound_s) if shielded else _read(inner)

        def call(context: CallContext, body: Body) -> Serving:
            try:
                set_deadline(spec, context)
            except DomainError as error:
                recorder.refused(error.code.name, error.reason.value)
                raise
            return run(context, body)

        return call

    return layer


def _read(inner: Endpoint) -> Endpoint:
    async def call(context: CallContext, body: Body) -> bytes | None:
        running = inner(context, body)
        try:
            waiting_for = running.send(None)
        except StopIteration as answered:
            return answered.value
        if math.isinf(context.deadline):
            return await resume(running, waiting_for)
        try:
            async with asyncio.timeout_at(context.deadline):
                return await resume(running, waiting_for)
        except TimeoutError:
            raise _ran_out(context) from None

    return call


def _write(
    spec: MethodSpec, inner: Endpoint, tasks: TaskGroupTracker, recorder: CallRecorder, bound_s: float
) -> Endpoint:
    async def bounded(context: CallContext, body: Body) -> bytes | None:
        try:
            async with asyncio.timeout(bound_s):
                return await inner(context, body)
        except TimeoutError:
            _log.error("write cancelled at its bound", method=spec.path, bound_s=bound_s)
            raise _ran_out(context) from None

    async def call(context: CallContext, body: Body) -> bytes | None:
        # asyncio.wait cancels nothing, neither when its time is over nor when it is cancelled itself.
        task = tasks.spawn(bounded(context, body), spec.path)
        try:
            await asyncio.wait({task}, timeout=context.remaining_s())
        finally:
            if not task.done():
                context.outliving = task
                recorder.outlived()
                _log.warning("write outlives its caller", method=spec.path)
        if context.outliving is not None:
            raise _ran_out(context)
        return task.result()

    return call
