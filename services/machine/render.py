"""From the model to protobuf."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from lictor.machine.v1 import machine_pb2 as pb

from services.machine.model import Machine, State
from services.machine.processes import Process
from services.machine.terms import Terms
from shared.etags import etag_of
from shared.facts.machines import SeatsValue
from shared.rpc.render import duration, struct, timestamp

_HEARTBEATS = {
    State.NOT_STARTED: pb.HeartbeatStatus.NOT_STARTED,
    State.ALIVE: pb.HeartbeatStatus.ALIVE,
    State.DEAD: pb.HeartbeatStatus.DEAD,
}


def machine(value: Machine, terms: Terms | None, now: datetime) -> pb.Machine:
    """As it stands at `now`."""
    state = value.state_at(now, terms)
    reason = value.deactivation_reason
    message = pb.Machine(
        machine_id=value.machine_id,
        external_id=value.external_id or "",
        license_id=value.license_id,
        product_id=value.product_id,
        policy_id=value.policy_id,
        user_id=value.user_id or "",
        identity_kind=pb.IdentityKind.Kind.Value(value.identity_kind.value),
        fingerprint_names=sorted(name for name in value.fingerprints if name),
        generation=value.generation,
        display_name=value.display_name,
        hostname=value.hostname,
        platform=pb.Platform.Kind.Value(value.platform or "KIND_UNSPECIFIED"),
        ip=value.ip,
        status=pb.MachineStatus.deactivated if state is State.DEACTIVATED else pb.MachineStatus.active,
        deactivation_reason=pb.DeactivationReason.Kind.Value(reason.value if reason else "KIND_UNSPECIFIED"),
        deactivate_time=timestamp(value.deactivated_at),
        heartbeat_status=_HEARTBEATS.get(state, pb.HeartbeatStatus.Status.Value(value.heartbeat_status.value)),
        last_heartbeat_time=timestamp(value.last_heartbeat_at),
        heartbeat_deadline=timestamp(value.deadline(terms)),
        offline_until=timestamp(value.offline_until),
        component_names=sorted(value.components),
        labels=dict(value.labels),
        metadata=struct(value.metadata),
        create_time=timestamp(value.activated_at),
        update_time=timestamp(value.updated_at),
        etag=etag_of(value.revision),
        revision=value.revision,
    )
    if (held := lease(value)) is not None:
        message.lease.CopyFrom(held)
    for field in ("cores", "memory_bytes", "disk_bytes"):
        if (number := getattr(value, field)) is not None:
            setattr(message, field, number)
    return message


def lease(value: Machine) -> pb.Lease | None:
    """The lease by which a machine has its seat; None where it has none, or not by a lease."""
    if value.lease_epoch is None or value.lease_expires_at is None:
        return None
    return lease_of(value.lease_epoch, value.lease_expires_at)


def lease_of(epoch: int, expires_at: datetime) -> pb.Lease:
    """A lease by its number and its end."""
    return pb.Lease(epoch=epoch, expire_time=timestamp(expires_at))


def moment(at: Timestamp) -> datetime:
    """A time of an answer, in UTC."""
    return at.ToDatetime(UTC)


def heartbeat(value: Machine, terms: Terms, now: datetime) -> pb.Heartbeat:
    """How the heartbeats of a machine stand at `now`."""
    return pb.Heartbeat(
        status=_HEARTBEATS.get(value.state_at(now, terms), pb.HeartbeatStatus.DEAD),
        deadline=timestamp(value.deadline(terms)),
        interval=duration(terms.heartbeat_interval),
    )


def living(deadline: datetime | None, interval: timedelta) -> pb.Heartbeat:
    """The heartbeats of a machine that is alive."""
    return pb.Heartbeat(status=pb.HeartbeatStatus.ALIVE, deadline=timestamp(deadline), interval=duration(interval))


def process(value: Process, interval: timedelta | None) -> pb.Process:
    """A process whose heartbeats are due so often; one that has ended where there is no interval."""
    return pb.Process(
        process_id=value.process_id,
        machine_id=value.machine_id,
        license_id=value.license_id,
        user_id=value.user_id or "",
        name=value.name,
        start_time=timestamp(value.started_at),
        last_heartbeat_time=timestamp(value.last_heartbeat_at),
        heartbeat_deadline=None if interval is None else timestamp(value.deadline(interval)),
        heartbeat_interval=duration(interval),
    )


def seat_count(seats: SeatsValue | int, terms: Terms) -> pb.SeatCount:
    """The seats of a license, or how many of them are held."""
    message = pb.SeatCount(taken=seats if isinstance(seats, int) else seats.machines)
    if (limit := terms.limit("max_machines")) is not None:
        message.limit = limit
    return message
