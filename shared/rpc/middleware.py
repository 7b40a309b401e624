"""The chain around every method, outermost first:

    effects > admission > deadline > metrics and logs > error mapping > metadata size > authentication with per-account admission
    > rate limits > authorization > message size > parse > handler

Each layer wraps each method once, when the route table is built. The innermost three are in `codec` and `routes`.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

from shared.crypto.service_tokens import ServiceTokens
from shared.errors import DomainError, FieldViolation, Reason, fields_invalid
from shared.observe.logging import get_logger
from shared.observe.metrics import Metrics
from shared.rpc.accounts import AccountPlaces
from shared.rpc.admission import AdmissionGate, admission
from shared.rpc.auth import Authenticator, authentication, authorization
from shared.rpc.context import MAX_METADATA_BYTES, CallAbortedError, CallContext
from shared.rpc.deadlines import deadlines
from shared.rpc.effects import EffectWaits, effects
from shared.rpc.rates import Rates, rate_limits
from shared.rpc.routes import Body, Endpoint, MethodSpec, Middleware, Serving
from shared.rpc.status import code_name
from shared.tasks import TaskGroupTracker

_log = get_logger(__name__)


def standard_chain(
    gate: AdmissionGate,
    metrics: Metrics,
    tasks: TaskGroupTracker,
    authenticator: Authenticator,
    *,
    places: AccountPlaces,
    rates: Rates,
    waits: EffectWaits | None = None,
    services: ServiceTokens | None = None,
) -> tuple[Middleware, ...]:
    """The chain of a serving process, outermost first."""
    return (
        effects(waits),
        admission(gate, metrics),
        deadlines(tasks, metrics),
        observation(metrics),
        error_mapping,
        metadata_limit,
        authentication(authenticator, places, services),
        rate_limits(rates),
        authorization(),
    )


def observation(metrics: Metrics) -> Middleware:
    """Counts and times each call, and logs it: writes at info, reads at debug."""

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        recorder = metrics.recorder(spec.service, spec.name)
        # Asked once: even a log line that is filtered out costs microseconds that reads should not pay.
        logs = spec.mutates or _log.is_enabled_for(logging.DEBUG)
        log = _log.info if spec.mutates else _log.debug

        def ended(context: CallContext, code: str, reason: str, seconds: float) -> None:
            ms = round(seconds * 1000, 2)
            log("call", method=spec.path, code=code, reason=reason, ms=ms, trace_id=context.trace_id)

        async def call(context: CallContext, body: Body) -> bytes | None:
            begun = perf_counter()
            try:
                answer = await inner(context, body)
            except BaseException as error:
                code, reason = _outcome(error, context)
                seconds = perf_counter() - begun
                recorder.failed(code, reason, seconds)
                if logs:
                    ended(context, code, reason, seconds)
                raise
            seconds = perf_counter() - begun
            recorder.ok(seconds)
            if logs:
                ended(context, "OK", "", seconds)
            return answer

        return call

    return layer


def _outcome(error: BaseException, context: CallContext) -> tuple[str, str]:
    """The code and reason to count. A cancellation past the deadline is the deadline's; before it, the caller left."""
    if isinstance(error, DomainError):
        return error.code.name, error.reason.value
    if isinstance(error, CallAbortedError):
        return code_name(error.code), ""
    if isinstance(error, asyncio.CancelledError) and context.remaining_s() > 0:
        return "CANCELLED", ""
    return "DEADLINE_EXCEEDED", Reason.DEADLINE_TOO_SHORT.value


def error_mapping(spec: MethodSpec, inner: Endpoint) -> Endpoint:
    """Turns every exception that is no refusal into INTERNAL_FAULT: traceback to the log, call id to the caller."""

    async def call(context: CallContext, body: Body) -> bytes | None:
        try:
            return await inner(context, body)
        except (DomainError, CallAbortedError):
            raise
        except Exception as error:  # noqa: BLE001 - the one place where every fault ends
            _log.error("unhandled exception", method=spec.path, call_id=context.call_id, exc_info=error)
            raise DomainError(
                Reason.INTERNAL_FAULT, f"a fault of the server; its log has the details under {context.call_id}"
            ) from None

    return call


def metadata_limit(spec: MethodSpec, inner: Endpoint) -> Endpoint:
    """Refuses calls with more than 16 KiB of metadata before their credential is looked at."""

    def call(context: CallContext, body: Body) -> Serving:
        if context.metadata_size > MAX_METADATA_BYTES:
            description = f"the metadata has {context.metadata_size} bytes; at most {MAX_METADATA_BYTES} are taken"
            raise fields_invalid((FieldViolation("", "METADATA_TOO_LARGE", description),))
        return inner(context, body)

    return call
