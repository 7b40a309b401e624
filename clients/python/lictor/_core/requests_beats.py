"""Heartbeats in the background: what to send, when to send the next, and which failure ends them. No I/O."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Generic, TypeVar

from lictor.machine.v1 import activation_service_pb2 as pb

from .errors import LictorError
from .prepared import Prepared
from .requests_machines import heartbeat
from .requests_processes import heartbeat_process
from .requests_watch import is_of_the_connection

FIRST_RETRY_S: Final = 1.0
SHARE: Final = (0.4, 0.6)
"""Of the interval between two heartbeats: one may be lost, and machines that start together do not stay together."""
WITHOUT_INTERVAL_S: Final = 300.0
_PASSING: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"})

_draw: Final = random.SystemRandom().uniform
T = TypeVar("T")


class Beating(Generic[T]):
    """One `beats()` or `process()`.

    Attributes:
        heartbeat: The last answer.
        failures: How many heartbeats in a row had no answer.
        call: Makes the next heartbeat.
        end: Makes the call after the last one; None where there is none.
    """

    def __init__(
        self,
        call: Callable[[], Prepared[T]],
        interval_of: Callable[[T], timedelta | None],
        end: Callable[[], Prepared[T]] | None = None,
    ) -> None:
        self.heartbeat: T | None = None
        self.failures = 0
        self.call = call
        self.end = end
        self._interval_of = interval_of

    def answered(self, answer: T) -> float:
        """How long to wait before the next, in seconds: as long as the policy says by now."""
        self.heartbeat, self.failures = answer, 0
        return self._interval_s() * _draw(*SHARE)

    def failed(self, error: LictorError) -> float:
        """The same where there was no answer; raises `error` where trying again would not help."""
        if error.code not in _PASSING and not is_of_the_connection(error):
            raise error
        self.failures += 1
        most_s = max(FIRST_RETRY_S, self._interval_s() / 4)
        return _draw(FIRST_RETRY_S / 2, min(most_s, FIRST_RETRY_S * 2 ** min(self.failures, 10)))

    def _interval_s(self) -> float:
        interval = None if self.heartbeat is None else self._interval_of(self.heartbeat)
        return WITHOUT_INTERVAL_S if interval is None else interval.total_seconds()


def beats(machine_id: str, *, machine_secret: str = "") -> Beating[pb.HeartbeatMachineResponse]:
    """Sends a machine's heartbeats while the `with` block runs, about twice in the policy's interval.

    The first is sent before the block begins, and a refusal of it is raised there. A later refusal (of a machine that is
    dead, or was deactivated) sets `lost`, with the reason in `error`; a connection that fails is tried again.
    """

    def interval_of(answer: pb.HeartbeatMachineResponse) -> timedelta | None:
        return answer.heartbeat.interval.ToTimedelta() if answer.heartbeat.HasField("interval") else None

    return Beating(lambda: heartbeat(machine_id, machine_secret=machine_secret), interval_of)


def process(machine_id: str, name: str, *, machine_secret: str = "") -> Beating[pb.HeartbeatProcessResponse]:
    """Is a process of a machine while the `with` block runs: takes a place before the block begins, sends heartbeats, and gives
    the place up when the block ends.

    Where there is no place, MACHINE_LIMIT_EXCEEDED is raised before the block begins. A later refusal (of a machine that was
    deactivated) sets `lost`, with the reason in `error`; a connection that fails is tried again.
    """

    def beat(ended: bool) -> Prepared[pb.HeartbeatProcessResponse]:
        return heartbeat_process(machine_id, name, machine_secret=machine_secret, ended=ended)

    def interval_of(answer: pb.HeartbeatProcessResponse) -> timedelta | None:
        return answer.process.heartbeat_interval.ToTimedelta()

    return Beating(lambda: beat(False), interval_of, lambda: beat(True))
