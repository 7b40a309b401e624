"""What the calls about leases have in common: what they ask with, and what they are told."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from lictor.machine.v1 import activation_service_pb2 as pb
from lictor.machine.v1 import machine_pb2

from services.machine import callers, render
from services.machine.commands.acquire_seat import Acquired, Queued
from services.machine.commands.take_seat import NewMachine
from services.machine.identities import identity_of
from services.machine.resources import Resources
from services.machine.servicer import platform
from shared.db.pool import Transaction
from shared.rpc.context import CallContext
from shared.rpc.render import timestamp


def holder(r: Resources, request: pb.AcquireSeatRequest | pb.HoldSeatRequest, context: CallContext) -> NewMachine:
    """The machine that asks for a lease, as it says of itself."""
    return NewMachine(
        identity_of(r.fingerprints, context, request.identity),
        display_name=request.display_name,
        hostname=request.hostname,
        platform=platform(request.platform),
        cores=request.cores if request.HasField("cores") else None,
        memory_bytes=request.memory_bytes if request.HasField("memory_bytes") else None,
        disk_bytes=request.disk_bytes if request.HasField("disk_bytes") else None,
        user_id=request.user_id or None,
    )


def length(given: Duration | None, default: timedelta) -> timedelta:
    """A duration of a request, or what its absence means."""
    return default if given is None else given.ToTimedelta()


def ticket(made: Queued) -> machine_pb2.SeatTicket:
    """A place among those who wait."""
    place = made.place
    return machine_pb2.SeatTicket(
        ticket_id=place.ticket_id,
        position=place.ahead + 1,
        lapse_time=timestamp(place.lapses_at),
        seats=render.seat_count(made.seats, made.terms),
    )


def grant(r: Resources, context: CallContext, made: Acquired, tx: Transaction) -> machine_pb2.SeatGrant:
    """The seat as its machine is told of it."""
    principal = context.principal
    return machine_pb2.SeatGrant(
        machine=callers.shown(principal, render.machine(made.machine, made.terms, tx.now)),
        machine_secret=r.secrets.of(principal.tenant, made.machine.machine_id),
        seats=render.seat_count(made.seats, made.terms),
        overage=made.overage,
        taken_over=made.taken_over,
        evicted_machine_ids=[gone.machine_id for gone in made.evicted],
    )
