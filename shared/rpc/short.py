"""The short way of a hot call whose answer is known: all that the chain would ask, asked at once, and no step of it taken.

The chain is what says how a call is served. This answers only where each of its layers would let the call through and
the method would give an answer again; in doubt, and in all that could end otherwise, it says nothing, and the chain does.
Nothing is remembered here: who calls and what is answered are looked up for each call where the chain would find them.

| layer | here |
|---|---|
| effects | hot methods change nothing |
| admission | asked; a call that never waits needs no place |
| deadline | asked; there is no waiting that could exceed it |
| metrics and logs | counted and timed; where calls are logged there is no short way |
| error mapping | a fault is left to the chain |
| metadata size | asked |
| authentication | a credential that is known by heart, by the same rule |
| per-account admission, turns | asked |
| rate limits | no caller whose calls are counted |
| authorization | asked |
| message size, parse | an answer is known for these very bytes |
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Final

from shared.observe.logging import get_logger
from shared.observe.metrics import Metrics
from shared.rpc.accounts import AccountPlaces
from shared.rpc.admission import AdmissionGate
from shared.rpc.auth import NARROW_KINDS
from shared.rpc.context import MAX_METADATA_BYTES, CallContext
from shared.rpc.deadlines import is_too_short
from shared.rpc.rates import kind_of
from shared.rpc.routes import Again, MethodSpec, Short
from shared.tenancy import Principal, PrincipalKind

KEPT_OUT: Final = NARROW_KINDS | {PrincipalKind.SERVICE}
UNCOUNTED: Final = frozenset(kind for kind in PrincipalKind if kind_of(kind, hot=True) is None) - KEPT_OUT
"""Callers whose hot calls no rate counts, and whom no method keeps out."""

Recognise = Callable[[str], Principal | None]
"""Who shows this `authorization`, where that is known at once; otherwise None."""

_log = get_logger(__name__)


class ShortWays:
    """Makes the short ways of a process. It asks the same gate and places as the chain."""

    def __init__(
        self, gate: AdmissionGate, metrics: Metrics, places: AccountPlaces, recognise: Recognise | None
    ) -> None:
        self._gate = gate
        self._metrics = metrics
        self._places = places
        self._recognise = recognise

    def make(self, spec: MethodSpec, again: Again) -> Short | None:
        """The short way of a method; None where it has none."""
        recognise = self._recognise
        if recognise is None or not spec.rules.hot or spec.mutates or _log.is_enabled_for(logging.DEBUG):
            return None
        gate, places, scope = self._gate, self._places, spec.rules.scope
        recorder = self._metrics.recorder(spec.service, spec.name)

        def short(context: CallContext, body: bytes) -> bytes | None:
            begun = perf_counter()
            authorization = context.only_authorization()
            if (
                authorization is None
                or context.metadata_size > MAX_METADATA_BYTES
                or is_too_short(context.time_left_s)
                or not gate.open
            ):
                return None
            try:
                principal = recognise(authorization)
                if (
                    principal is None
                    or principal.kind not in UNCOUNTED
                    or scope not in principal.scopes
                    or not places.room(principal.account_id)
                    or (answer := again(principal, body)) is None
                ):
                    return None
            except Exception as error:  # noqa: BLE001 - the chain says what becomes of the call
                _log.error("the short way failed", method=spec.path, exc_info=error)
                return None
            recorder.ok(perf_counter() - begun)
            return answer

        return short
