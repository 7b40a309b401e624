"""MachineService: protobuf to model and back, nothing else."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from lictor.machine.v1 import machine_pb2
from lictor.machine.v1 import machine_service_pb2 as pb

from services.machine import callers, fields, process_store, render, seat_store, store, terms_store, wait_store
from services.machine.commands.deactivate_machine import Deactivation, deactivate_machine
from services.machine.commands.evict_seat import evict_seat
from services.machine.commands.reset_heartbeat import reset_heartbeat
from services.machine.commands.take_seat import NewMachine
from services.machine.commands.transfer_machine import Transfer, transfer_machine
from services.machine.commands.update_machine import update_machine
from services.machine.identities import identity_of
from services.machine.model import DeactivationReason, Machine
from services.machine.processes import Among, heard_since
from services.machine.resources import Resources
from services.machine.store import MachineFilter
from services.machine.terms import Terms
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.rpc.context import CallContext
from shared.rpc.fields import masked
from shared.rpc.pages import page_of
from shared.tenancy import Principal, PrincipalKind

Found = tuple[Machine, Terms | None]


class MachineServicer:
    """Machines, as those manage them who sell licenses or hold them."""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def GetMachine(self, request: pb.GetMachineRequest, context: CallContext) -> pb.GetMachineResponse:
        fields.check(request)
        principal, name = context.principal, request.machine_id or request.external_id
        async with self._r.db.transaction(principal.tenant, read_only=True) as tx:
            if request.machine_id:
                found = await store.get_machine(tx, name)
            else:
                found = await store.get_machine_by_external_id(tx, name)
            machine = await callers.refuse_others(tx, principal, found, name)
            terms = await terms_store.terms_of(tx, machine.license_id)
        return pb.GetMachineResponse(machine=_shown(principal, (machine, terms), tx))

    async def ListMachines(self, request: pb.ListMachinesRequest, context: CallContext) -> pb.ListMachinesResponse:
        fields.check(request)
        principal = context.principal
        narrowed = MachineFilter(
            license_id=request.license_id,
            product_id=request.product_id,
            policy_id=request.policy_id,
            user_id=request.user_id,
            live=None if not request.status else request.status == machine_pb2.MachineStatus.active,
            customer_id=principal.customer_id,
        )
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"machines|{narrowed}",
            read=lambda tx, after, limit: store.page_of_machines(tx, after, limit, narrowed),
            id_of=lambda found: found[0].machine_id,
            rendered=lambda found, now: callers.shown(principal, render.machine(*found, now)),
        )
        return pb.ListMachinesResponse(machines=page.items, next_page_token=page.next_token)

    async def ListSeats(self, request: pb.ListSeatsRequest, context: CallContext) -> pb.ListSeatsResponse:
        fields.check(request)
        license_id, tenant = request.license_id, context.principal.tenant
        async with self._r.db.transaction(tenant, read_only=True) as tx:
            terms = await terms_store.terms_of(tx, license_id)
            if terms is None:
                raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
            held = await seat_store.count_held(tx, license_id, None)
            waiting = await wait_store.ahead_of(tx, license_id, (), None)
        narrowed = MachineFilter(license_id=license_id, live=True, held=True)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"seats|{narrowed}",
            read=lambda tx, after, limit: store.page_of_machines(tx, after, limit, narrowed),
            id_of=lambda found: found[0].machine_id,
            rendered=lambda found, now: render.machine(*found, now),
        )
        count = render.seat_count(held, terms)
        return pb.ListSeatsResponse(machines=page.items, next_page_token=page.next_token, seats=count, waiting=waiting)

    async def ListProcesses(self, request: pb.ListProcessesRequest, context: CallContext) -> pb.ListProcessesResponse:
        fields.check(request)
        license_id, machine_id, principal = request.license_id, request.machine_id, context.principal
        async with self._r.db.transaction(principal.tenant, read_only=True) as tx:
            terms = await terms_store.terms_of(tx, license_id)
            by_customer = principal.kind is PrincipalKind.CUSTOMER_SESSION
            if terms is None or (by_customer and terms.customer_id != principal.customer_id):
                raise not_found(Reason.LICENSE_NOT_FOUND, license_id)
            if machine_id:
                machine = await store.get_machine(tx, machine_id)
                if machine is None or machine.license_id != license_id:
                    raise not_found(Reason.MACHINE_NOT_FOUND, machine_id)
        interval, wanted = terms.heartbeat_interval, Among(license_id, machine_id or None)
        page = await page_of(
            self._r.db,
            self._r.pages,
            context,
            request,
            f"processes|{license_id}|{machine_id}",
            read=lambda tx, after, limit: process_store.page(tx, after, limit, wanted, heard_since(interval, tx.now)),
            id_of=lambda process: process.process_id,
            rendered=lambda process, now: render.process(process, interval),
        )
        return pb.ListProcessesResponse(processes=page.items, next_page_token=page.next_token)

    async def EvictSeat(self, request: pb.EvictSeatRequest, context: CallContext) -> pb.EvictSeatResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.EvictSeatResponse:
            gone = await evict_seat(
                tx,
                actor=context.principal.key_id,
                machine_id=request.machine_id,
                etag=request.etag,
                reason=request.reason,
            )
            return pb.EvictSeatResponse(machine=_shown(context.principal, gone, tx))

        return await self._r.writer.run(context, request, pb.EvictSeatResponse, work)

    async def UpdateMachine(self, request: pb.UpdateMachineRequest, context: CallContext) -> pb.UpdateMachineResponse:
        fields.check(request)
        changes = {field: _value(request, field) for field in masked(request, fields.MACHINE_FIELDS)}

        async def work(tx: Transaction) -> pb.UpdateMachineResponse:
            changed = await update_machine(
                tx, actor=context.principal.key_id, machine_id=request.machine_id, etag=request.etag, changes=changes
            )
            return pb.UpdateMachineResponse(machine=_shown(context.principal, changed, tx))

        return await self._r.writer.run(context, request, pb.UpdateMachineResponse, work)

    async def DeactivateMachine(
        self, request: pb.DeactivateMachineRequest, context: CallContext
    ) -> pb.DeactivateMachineResponse:
        fields.check(request)
        principal = context.principal
        by_customer = principal.kind is PrincipalKind.CUSTOMER_SESSION
        why = DeactivationReason.CUSTOMER if by_customer else DeactivationReason.ADMIN
        wanted = Deactivation(request.machine_id, why, request.etag, request.reason)

        async def work(tx: Transaction) -> pb.DeactivateMachineResponse:
            if by_customer:
                found = await store.get_machine(tx, request.machine_id)
                await callers.refuse_others(tx, principal, found, request.machine_id)
            gone = await deactivate_machine(tx, principal, wanted)
            return pb.DeactivateMachineResponse(machine=_shown(principal, gone, tx))

        return await self._r.writer.run(context, request, pb.DeactivateMachineResponse, work)

    async def TransferMachine(
        self, request: pb.TransferMachineRequest, context: CallContext
    ) -> pb.TransferMachineResponse:
        fields.check(request)
        principal = context.principal
        wanted = NewMachine(
            identity_of(self._r.fingerprints, context, request.identity),
            display_name=request.display_name,
            hostname=request.hostname,
            platform=platform(request.platform),
        )
        by_holder = principal.kind is PrincipalKind.LICENSE_KEY
        asked = Transfer(request.machine_id, request.etag, request.reason, by_holder, wanted)

        async def work(tx: Transaction) -> pb.TransferMachineResponse:
            await callers.refuse_unproven(tx, self._r.secrets, principal, request.machine_id, "")
            made = await transfer_machine(
                tx,
                actor=principal.key_id,
                asked=asked,
                count=lambda: context.charge_activation(principal.license_id),
            )
            secret = self._r.secrets.of(principal.tenant, made[0].machine_id)
            return pb.TransferMachineResponse(machine=_shown(principal, made, tx), machine_secret=secret)

        return await self._r.writer.run(context, request, pb.TransferMachineResponse, work)

    async def ResetMachineHeartbeat(
        self, request: pb.ResetMachineHeartbeatRequest, context: CallContext
    ) -> pb.ResetMachineHeartbeatResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.ResetMachineHeartbeatResponse:
            anew = await reset_heartbeat(
                tx,
                actor=context.principal.key_id,
                machine_id=request.machine_id,
                etag=request.etag,
                reason=request.reason,
            )
            return pb.ResetMachineHeartbeatResponse(machine=_shown(context.principal, anew, tx))

        return await self._r.writer.run(context, request, pb.ResetMachineHeartbeatResponse, work)


def platform(value: machine_pb2.Platform.Kind.ValueType) -> str:
    """The model's word; empty where nobody said."""
    return machine_pb2.Platform.Kind.Name(value) if value else ""


def _shown(principal: Principal, found: Found, tx: Transaction) -> machine_pb2.Machine:
    return callers.shown(principal, render.machine(*found, tx.now))


def _value(request: pb.UpdateMachineRequest, field: str) -> Any:
    match field:
        case "external_id" | "user_id":
            return getattr(request, field) or None
        case "platform":
            return platform(request.platform)
        case "cores" | "memory_bytes" | "disk_bytes":
            return getattr(request, field) if request.HasField(field) else None
        case "labels":
            return dict(request.labels)
        case "metadata":
            return MessageToDict(request.metadata)
        case _:
            return getattr(request, field)
