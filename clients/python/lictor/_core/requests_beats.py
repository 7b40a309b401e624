"""Heartbeats in the background: what to send, when to send the next, and which failure ends them. No I/O."""

from __future__ import annotations

import random
from typing import Final

from lictor.machine.v1 import activation_service_pb2 as pb

from .errors import LictorError
from .prepared import Prepared
from .requests_machines import heartbeat
from .requests_watch import is_of_the_connection

FIRST_RETRY_S: Final = 1.0
SHARE: Final = (0.4, 0.6)
"""Of the interval between two heartbeats: one may be lost, and machines that start together do not stay together."""
WITHOUT_INTERVAL_S: Final = 300.0
_PASSING: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"})

_draw: Final = random.SystemRandom().uniform


class Beating:
    """One `beats()`.

    Attributes:
        heartbeat: How the machine's heartbeats stood at the last answer.
        failures: How many heartbeats in a row had no answer.
    """

    def __init__(self, machine_id: str, machine_secret: str) -> None:
        self.heartbeat: pb.HeartbeatMachineResponse | None = None
        self.failures = 0
        self._machine_id = machine_id
        self._machine_secret = machine_secret

    def call(self) -> Prepared[pb.HeartbeatMachineResponse]:
        return heartbeat(self._machine_id, machine_secret=self._machine_secret)

    def answered(self, answer: pb.HeartbeatMachineResponse) -> float:
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
        if self.heartbeat is None or not self.heartbeat.heartbeat.HasField("interval"):
            return WITHOUT_INTERVAL_S
        return self.heartbeat.heartbeat.interval.ToTimedelta().total_seconds()


def beats(machine_id: str, *, machine_secret: str = "") -> Beating:
    """Sends a machine's heartbeats while the `with` block runs, about twice in the policy's interval.

    The first is sent before the block begins, and a refusal of it is raised there. A later refusal (of a machine that is
    dead, or was deactivated) sets `lost`, with the reason in `error`; a connection that fails is tried again.
    """
    return Beating(machine_id, machine_secret)
