"""A stream that holds a seat: what to ask with, what a message tells, and when to go on after a failure. No I/O."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from google.protobuf.message import DecodeError

from lictor.machine.v1 import activation_service_pb2 as pb
from lictor.machine.v1 import machine_pb2

from .convert import MachineLike, duration, enum_value, license_selector, machine_identity
from .errors import Internal, LictorError
from .prepared import Prepared
from .requests_machines import PlatformLike
from .requests_seats import release_seat
from .requests_watch import is_of_the_connection

METHOD: Final = "/lictor.machine.v1.ActivationService/HoldSeat"
DEFAULT_GRACE_S: Final = 30.0
LEASE_SHORTER_S: Final = 1.5
"""By how much a lease of a stream is shorter than its grace."""
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MOST_S: Final = 1.0

_draw: Final = random.SystemRandom().uniform


class Holding:
    """One `hold_seat()`: it outlives the streams that it is held by.

    Attributes:
        grant: The seat, once there is one.
        ticket: The place among those who wait, before that.
        changed: Called after each message.
    """

    def __init__(self, request: pb.HoldSeatRequest, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.grant: machine_pb2.SeatGrant | None = None
        self.ticket: machine_pb2.SeatTicket | None = None
        self.changed: Callable[[], None] = lambda: None
        self._request = request
        self._clock = clock
        grace_s = request.grace.ToTimedelta().total_seconds() if request.HasField("grace") else DEFAULT_GRACE_S
        self._lease_s = grace_s - LEASE_SHORTER_S
        self._heard_at = clock()
        self._failures = 0

    def body(self) -> bytes:
        """What the next stream is asked with."""
        return self._request.SerializeToString()

    def take(self, raw: bytes) -> None:
        """What a message tells."""
        try:
            message = pb.HoldSeatResponse.FromString(raw)
        except DecodeError as fault:
            raise Internal(f"an answer to {METHOD} is not the message it should be", code="INTERNAL") from fault
        self._failures, self._heard_at = 0, self._clock()
        match message.WhichOneof("word"):
            case "granted":
                self.grant = message.granted
                self._request.resume_token = message.resume_token
            case "queued":
                self.ticket = message.queued
            case "keepalive":
                if self.grant is not None:
                    self.grant.machine.lease.CopyFrom(message.keepalive)
            case _:
                return
        self.changed()

    def release(self) -> Prepared[pb.ReleaseSeatResponse]:
        """What gives the seat up. RuntimeError before there is one."""
        if self.grant is None:
            raise RuntimeError("there is no seat yet")
        machine, secret = self.grant.machine, self.grant.machine_secret
        return release_seat(machine.machine_id, machine.lease.epoch, machine_secret=secret, timeout_s=2.0)

    def wait_s(self, error: LictorError | None) -> float:
        """How long to wait before the next stream; raises `error` where the seat is lost, or not heard of for the length of a
        lease."""
        if error is not None and not is_of_the_connection(error):
            raise error
        if error is not None and self._clock() - self._heard_at > self._lease_s:
            raise error
        self._failures += 1
        return _draw(BACKOFF_FIRST_S / 2, min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(self._failures, 10)))


def hold_seat(
    *,
    fingerprint: MachineLike,
    key: str | None = None,
    license_id: str | None = None,
    grace: timedelta | None = None,
    display_name: str = "",
    hostname: str = "",
    platform: PlatformLike | None = None,
    cores: int | None = None,
    memory_bytes: int | None = None,
    disk_bytes: int | None = None,
    user_id: str = "",
) -> Holding:
    """Holds a seat of a floating license while the `with` block runs, and gives it up in the end.

    It comes back by itself with the same lease where a process leaves or the connection is lost, within the `grace` (30 s unless
    given). Look at `lost` between two steps of what the seat is for, and stop once it is set. A seat that is refused raises where
    the block would begin; where the policy queues, the block begins once there is a seat.
    """
    request = pb.HoldSeatRequest(
        license=license_selector(key, license_id),
        identity=machine_identity(fingerprint),
        grace=duration(grace),
        display_name=display_name,
        hostname=hostname,
        platform=enum_value(machine_pb2.Platform.Kind, platform),
        cores=cores,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        user_id=user_id,
    )
    return Holding(request)
