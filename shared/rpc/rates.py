"""Rates: each process holds each credential to its share of what the account allows. Nothing outside is asked.

| caller | method | limit |
|---|---|---|
| operator's key, another service | any | none |
| secret key, workload | hot | none of its own: the account's share of the calls in flight bounds it |
| secret key, workload | other | `management_calls_per_second`, of the key or the binding |
| license key | any | `license_calls_per_second`, of the license |
| publishable key | hot | the same, of each license that it asks about; the handler counts when it knows which |
| publishable key | other | `management_calls_per_second`, of the key |
| license key, publishable key | machines that come | `activations_per_minute`, `activations_per_day` beside, of the license |
| customer session | any | `session_calls_per_minute`, of the session |
| nobody | anonymous | `ANONYMOUS_CALLS_PER_S`, of the address |

A process that knows of n live ones lets 1/n through. A bucket is one number under the credential's id; those that are full
again are forgotten as others are used, so what is kept is bounded by the calls of a span and by `MAX_BUCKETS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Final, TypedDict, assert_never

from shared.errors import DomainError, Reason
from shared.rpc.buckets import Buckets
from shared.rpc.context import CallContext
from shared.rpc.routes import Body, Endpoint, MethodSpec, Middleware, Serving
from shared.rules.limits import DEFAULTS, LimitKind, count_of
from shared.tenancy import Principal, PrincipalKind

ANONYMOUS_CALLS_PER_S: Final = 100
"""Of one address, all processes together; no account sets it, since the calls are no account's."""


_ACTIVATIONS: Final = (LimitKind.ACTIVATIONS_PER_MINUTE, LimitKind.ACTIVATIONS_PER_DAY)


class _Flow(TypedDict):
    """A process's share of a rate, as buckets take it."""

    per_s: float
    burst: float


class Rates:
    """The buckets of a process.

    Args:
        live: How many processes share each rate, now.
        clock: Seconds that never go back.
    """

    def __init__(self, live: Callable[[], int], clock: Callable[[], float] = monotonic) -> None:
        self._live = live
        self._buckets = {kind: Buckets(clock) for kind in LimitKind}
        self._addresses = Buckets(clock)

    def charge(self, principal: Principal, *, hot: bool) -> None:
        """Counts a call against the rate of whoever makes it.

        Raises:
            DomainError: RATE_LIMITED; then nothing was counted.
        """
        kind = (_HOT if hot else _OTHER)[principal.kind]
        if kind is not None:
            self.spend(kind, principal.license_id or principal.key_id, count_of(kind, principal.limits))

    def charge_address(self, peer: str) -> None:
        """Counts a call of nobody in particular against the address that it comes from. The same."""
        address, count = peer.rpartition(":")[0], ANONYMOUS_CALLS_PER_S / self._live()
        wait_s = self._addresses.take(address, per_s=count, burst=max(1.0, count))
        if wait_s > 0:
            limit = "anonymous_calls_per_second"
            raise _refusal(limit, ANONYMOUS_CALLS_PER_S, "calls a second of an address", wait_s, address)

    def charge_license(self, principal: Principal, whose: str) -> None:
        """Counts a call about a license, of which the caller shows the key. The same."""
        kind = LimitKind.LICENSE_CALLS
        self.spend(kind, whose, count_of(kind, principal.limits))

    def charge_activation(self, principal: Principal, license_id: str) -> None:
        """Counts a machine that comes to a license, against both of its rates or against neither.

        Raises:
            DomainError: RATE_LIMITED, of the rate that has room again last; then nothing was counted.
        """
        counts = [(kind, count) for kind in _ACTIVATIONS if (count := count_of(kind, principal.limits))]
        waits = [
            (self._buckets[kind].wait_s(license_id, **self._flow(kind, count)), kind, count) for kind, count in counts
        ]
        wait_s, kind, count = max(waits, default=(0.0, LimitKind.ACTIVATIONS_PER_DAY, 0))
        if wait_s > 0:
            raise _refusal(kind.value, count, DEFAULTS[kind].words, wait_s, license_id)
        for kind, count in counts:
            self.spend(kind, license_id, count)

    def spend(self, kind: LimitKind, whose: Hashable, count: int) -> None:
        """The same for one kind of limit: `count` in its span, all processes together; 0 for any number."""
        if count == 0:
            return
        wait_s = self._buckets[kind].take(whose, **self._flow(kind, count))
        if wait_s > 0:
            raise _refusal(kind.value, count, DEFAULTS[kind].words, wait_s, str(whose))

    def _flow(self, kind: LimitKind, count: int) -> _Flow:
        live = self._live()
        # A share of less than one could never be had.
        return {"per_s": count / DEFAULTS[kind].span_s / live, "burst": max(1.0, count / live)}


def _refusal(limit: str, allowed: int, words: str, wait_s: float, caller: str) -> DomainError:
    wait_ms = max(1, math.ceil(wait_s * 1000))
    return DomainError(
        Reason.RATE_LIMITED,
        f"the limit is {allowed} {words}; there is room again in {wait_ms} ms",
        metadata={"limit": limit, "allowed": str(allowed)},
        retry_after_ms=wait_ms,
        caller=caller,
    )


def kind_of(caller: PrincipalKind, *, hot: bool) -> LimitKind | None:
    """What the calls of a kind of caller count against; None for nothing."""
    match caller:
        case PrincipalKind.OPERATOR | PrincipalKind.SERVICE:
            return None
        case PrincipalKind.SECRET_KEY | PrincipalKind.WORKLOAD | PrincipalKind.PUBLISHABLE_KEY:
            return None if hot else LimitKind.MANAGEMENT_CALLS
        case PrincipalKind.LICENSE_KEY:
            return LimitKind.LICENSE_CALLS
        case PrincipalKind.CUSTOMER_SESSION:
            return LimitKind.SESSION_CALLS
        case _ as never:
            assert_never(never)


_HOT: Final = {kind: kind_of(kind, hot=True) for kind in PrincipalKind}
_OTHER: Final = {kind: kind_of(kind, hot=False) for kind in PrincipalKind}


def rate_limits(rates: Rates) -> Middleware:
    """Refuses callers that call too often, and lets handlers count what is asked about each license."""

    def layer(spec: MethodSpec, inner: Endpoint) -> Endpoint:
        if spec.anonymous:
            return inner
        if spec.rules.anonymous:
            return _by_address(rates, inner)
        hot = spec.rules.hot

        def call(context: CallContext, body: Body) -> Serving:
            rates.charge(context.principal, hot=hot)
            context.charged_by(rates.charge_license, rates.charge_activation)
            return inner(context, body)

        return call

    return layer


def _by_address(rates: Rates, inner: Endpoint) -> Endpoint:
    async def call(context: CallContext, body: Body) -> bytes | None:
        rates.charge_address(context.peer())
        return await inner(context, body)

    return call
