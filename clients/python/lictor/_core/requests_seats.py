"""The calls of ActivationService that are about leased seats."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lictor.machine.v1 import activation_service_pb2 as pb
from lictor.machine.v1 import machine_pb2
from lictor.machine.v1 import machine_service_pb2 as machines_pb

from .convert import MachineLike, duration, enum_value, fresh, license_selector, machine_identity
from .prepared import Listing, Prepared, page, write
from .requests_machines import PlatformLike

_MACHINES: Final = "/lictor.machine.v1.MachineService/"
_SERVICE: Final = "/lictor.machine.v1.ActivationService/"


def acquire_seat(
    *,
    fingerprint: MachineLike,
    key: str | None = None,
    license_id: str | None = None,
    ttl: timedelta | None = None,
    wait: timedelta | None = None,
    display_name: str = "",
    hostname: str = "",
    platform: PlatformLike | None = None,
    cores: int | None = None,
    memory_bytes: int | None = None,
    disk_bytes: int | None = None,
    user_id: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.AcquireSeatResponse]:
    """Leases a seat of a floating license; renew it before `granted.machine.lease.expire_time`, or it is anybody's.

    Where the policy queues, the answer may have `queued` in place of `granted`: ask again before its `lapse_time`, or `wait`.
    Without `key` and `license_id` it is the license that the client's own license key is of.
    """
    request = pb.AcquireSeatRequest(
        request_id=fresh(request_id),
        license=license_selector(key, license_id),
        identity=machine_identity(fingerprint),
        ttl=duration(ttl),
        wait=duration(wait),
        display_name=display_name,
        hostname=hostname,
        platform=enum_value(machine_pb2.Platform.Kind, platform),
        cores=cores,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        user_id=user_id,
    )
    return write(_SERVICE + "AcquireSeat", request, pb.AcquireSeatResponse, timeout_s)


def renew_seat(
    machine_id: str,
    epoch: int,
    *,
    machine_secret: str = "",
    ttl: timedelta | None = None,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.RenewSeatResponse]:
    """Makes a lease last `ttl` from now on (60 s where it is left out). SEAT_LOST once it is over, or somebody else's."""
    request = pb.RenewSeatRequest(
        request_id=fresh(request_id),
        machine_id=machine_id,
        machine_secret=machine_secret,
        epoch=epoch,
        ttl=duration(ttl),
    )
    return write(_SERVICE + "RenewSeat", request, pb.RenewSeatResponse, timeout_s)


def release_seat(
    machine_id: str,
    epoch: int,
    *,
    machine_secret: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.ReleaseSeatResponse]:
    """Gives a leased seat up."""
    request = pb.ReleaseSeatRequest(
        request_id=fresh(request_id), machine_id=machine_id, machine_secret=machine_secret, epoch=epoch, reason=reason
    )
    return write(_SERVICE + "ReleaseSeat", request, pb.ReleaseSeatResponse, timeout_s)


def list_seats(
    license_id: str, *, page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Listing[machines_pb.ListSeatsResponse, machine_pb2.Machine]:
    """Lists the machines that hold seats of a license at this moment, oldest first."""

    def ask(token: str) -> Prepared[machines_pb.ListSeatsResponse]:
        request = machines_pb.ListSeatsRequest(license_id=license_id, page_size=page_size, page_token=token)
        return page(_MACHINES + "ListSeats", request, machines_pb.ListSeatsResponse, timeout_s)

    return Listing(ask, lambda answer: answer.machines, page_token)


def evict_seat(
    machine_id: str,
    *,
    etag: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[machines_pb.EvictSeatResponse]:
    """Takes a leased seat from the machine that has it."""
    request = machines_pb.EvictSeatRequest(
        request_id=fresh(request_id), machine_id=machine_id, etag=etag, reason=reason
    )
    return write(_MACHINES + "EvictSeat", request, machines_pb.EvictSeatResponse, timeout_s)
