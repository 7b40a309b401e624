"""The calls of ActivationService that are about leases: protobuf to model and back, nothing else."""

from __future__ import annotations

from datetime import timedelta

from lictor.machine.v1 import activation_service_pb2 as pb

from services.machine import callers, fields, render
from services.machine.answers import grant, holder, length, ticket
from services.machine.commands.acquire_seat import Queued, acquire_seat, queue_up
from services.machine.commands.release_seat import release_seat
from services.machine.commands.renew_seat import renew_seat
from services.machine.commands.take_seat import NewMachine, NoSeatError
from services.machine.holding import hold_seat
from services.machine.leases import DEFAULT_GRACE, DEFAULT_TTL
from services.machine.licenses import license_of
from services.machine.queueing import await_turn, is_turn
from services.machine.refusals import tell_refusal
from services.machine.resources import Resources
from shared.db.pool import Transaction
from shared.rpc.context import CallContext


class SeatCalls:
    """What a machine calls that leases its seat."""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def AcquireSeat(self, request: pb.AcquireSeatRequest, context: CallContext) -> pb.AcquireSeatResponse:
        principal = context.principal
        license_id = await license_of(self._r, context, request.license, lambda: fields.check(request))
        wanted, ttl = (
            holder(self._r, request, context),
            length(request.ttl if request.HasField("ttl") else None, DEFAULT_TTL),
        )

        async def work(tx: Transaction) -> pb.AcquireSeatResponse:
            made = await acquire_seat(tx, actor=principal.key_id, license_id=license_id, wanted=wanted, ttl=ttl)
            if isinstance(made, Queued):
                return pb.AcquireSeatResponse(queued=ticket(made))
            return pb.AcquireSeatResponse(granted=grant(self._r, context, made, tx))

        try:
            if request.HasField("wait"):
                await self._wait(context, license_id, wanted, request.wait.ToTimedelta())
            return await self._r.writer.run(
                context,
                request,
                pb.AcquireSeatResponse,
                work,
                restricts=lambda answer: len(answer.granted.evicted_machine_ids) > 0,
            )
        except NoSeatError as refusal:
            await tell_refusal(self._r, principal, license_id, refusal)
            raise

    async def _wait(self, context: CallContext, license_id: str, wanted: NewMachine, wait: timedelta) -> None:
        """Waits in a place of the machine's own, where there is a queue. What comes of it is for the call itself to find out."""
        async with self._r.db.transaction(context.principal.tenant, read_only=True) as tx:
            if await is_turn(tx, license_id, wanted):
                return
        async with self._r.db.transaction(context.principal.tenant) as tx:
            await queue_up(tx, context.principal.key_id, license_id, wanted)
        await await_turn(self._r, context, license_id, wanted, wait.total_seconds())

    async def HoldSeat(self, request: pb.HoldSeatRequest, context: CallContext) -> None:
        license_id = await license_of(self._r, context, request.license, lambda: fields.check(request))
        grace = length(request.grace if request.HasField("grace") else None, DEFAULT_GRACE)
        await hold_seat(self._r, request, context, license_id, grace)

    async def RenewSeat(self, request: pb.RenewSeatRequest, context: CallContext) -> pb.RenewSeatResponse:
        fields.check(request)
        principal, ttl = context.principal, length(request.ttl if request.HasField("ttl") else None, DEFAULT_TTL)

        async def work(tx: Transaction) -> pb.RenewSeatResponse:
            await callers.refuse_unproven(tx, self._r.secrets, principal, request.machine_id, request.machine_secret)
            renewed = await renew_seat(tx, machine_id=request.machine_id, epoch=request.epoch, ttl=ttl)
            return pb.RenewSeatResponse(lease=render.lease(renewed))

        return await self._r.writer.run(context, request, pb.RenewSeatResponse, work)

    async def ReleaseSeat(self, request: pb.ReleaseSeatRequest, context: CallContext) -> pb.ReleaseSeatResponse:
        fields.check(request)
        principal = context.principal

        async def work(tx: Transaction) -> pb.ReleaseSeatResponse:
            await callers.refuse_unproven(tx, self._r.secrets, principal, request.machine_id, request.machine_secret)
            gone = await release_seat(
                tx, actor=principal.key_id, machine_id=request.machine_id, epoch=request.epoch, reason=request.reason
            )
            return pb.ReleaseSeatResponse(machine=callers.shown(principal, render.machine(*gone, tx.now)))

        return await self._r.writer.run(context, request, pb.ReleaseSeatResponse, work)
