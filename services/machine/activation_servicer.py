"""ActivationService: protobuf to model and back, nothing else."""

from __future__ import annotations

from google.protobuf.json_format import MessageToDict
from lictor.machine.v1 import activation_service_pb2 as pb

from services.machine import callers, fields, render
from services.machine.commands.activate_machine import Activated, activate_machine
from services.machine.commands.beat_machine import beat_machine
from services.machine.commands.beat_process import beat_process
from services.machine.commands.deactivate_machine import Deactivation, deactivate_machine
from services.machine.commands.end_process import end_process
from services.machine.commands.issue_machine_file import issue_machine_file
from services.machine.commands.return_machine_file import return_machine_file
from services.machine.commands.take_seat import NewMachine, NoSeatError
from services.machine.file_signing import signed_file
from services.machine.identities import identity_of, named_hashes
from services.machine.licenses import license_of
from services.machine.model import DeactivationReason
from services.machine.processes import NoPlaceError
from services.machine.refusals import tell_no_place, tell_refusal
from services.machine.seat_calls import SeatCalls
from services.machine.servicer import platform
from shared.db.pool import Transaction
from shared.rpc.context import CallContext
from shared.rpc.render import timestamp


class ActivationServicer(SeatCalls):
    """What the software on a machine calls."""

    async def ActivateMachine(
        self, request: pb.ActivateMachineRequest, context: CallContext
    ) -> pb.ActivateMachineResponse:
        principal = context.principal
        license_id = await license_of(self._r, context, request.license, lambda: fields.check(request))
        wanted = self._new_machine(request, context)

        async def work(tx: Transaction) -> pb.ActivateMachineResponse:
            made = await activate_machine(
                tx,
                actor=principal.key_id,
                license_id=license_id,
                wanted=wanted,
                count=lambda: context.charge_activation(license_id),
            )
            return self._activated(context, made, tx)

        try:
            return await self._r.writer.run(
                context,
                request,
                pb.ActivateMachineResponse,
                work,
                restricts=lambda answer: len(answer.evicted_machine_ids) > 0,
            )
        except NoSeatError as refusal:
            await tell_refusal(self._r, principal, license_id, refusal)
            raise

    async def DeactivateSelf(
        self, request: pb.DeactivateSelfRequest, context: CallContext
    ) -> pb.DeactivateSelfResponse:
        fields.check(request)
        principal = context.principal
        wanted = Deactivation(request.machine_id, DeactivationReason.SELF, reason=request.reason)

        async def work(tx: Transaction) -> pb.DeactivateSelfResponse:
            await callers.refuse_unproven(tx, self._r.secrets, principal, request.machine_id, request.machine_secret)
            gone = await deactivate_machine(tx, principal, wanted)
            machine = callers.shown(principal, render.machine(*gone, tx.now))
            return pb.DeactivateSelfResponse(machine=machine)

        return await self._r.writer.run(context, request, pb.DeactivateSelfResponse, work)

    async def HeartbeatMachine(
        self, request: pb.HeartbeatMachineRequest, context: CallContext
    ) -> pb.HeartbeatMachineResponse:
        fields.check(request)
        principal, machine_id, secret = context.principal, request.machine_id, request.machine_secret
        callers.refuse_unproven_secret(self._r.secrets, principal, machine_id, secret)
        taken = await self._r.beats.beat(principal.tenant, machine_id, callers.own_license(principal))
        if taken is not None:
            return pb.HeartbeatMachineResponse(heartbeat=render.living(taken.deadline, taken.interval))
        async with self._r.db.transaction(principal.tenant) as tx:
            await callers.refuse_unproven(tx, self._r.secrets, principal, machine_id, secret)
            beat = await beat_machine(tx, actor=principal.key_id, machine_id=machine_id)
        heartbeat = render.heartbeat(beat.machine, beat.terms, tx.now)
        return pb.HeartbeatMachineResponse(heartbeat=heartbeat, resurrected=beat.resurrected)

    async def HeartbeatProcess(
        self, request: pb.HeartbeatProcessRequest, context: CallContext
    ) -> pb.HeartbeatProcessResponse:
        fields.check(request)
        principal, machine_id, secret = context.principal, request.machine_id, request.machine_secret
        callers.refuse_unproven_secret(self._r.secrets, principal, machine_id, secret)
        if not request.ended:
            own = callers.own_license(principal)
            taken = await self._r.beats.beat_process(principal.tenant, machine_id, request.name, own)
            if taken is not None:
                return pb.HeartbeatProcessResponse(process=render.process(*taken))
        try:
            async with self._r.db.transaction(principal.tenant) as tx:
                await callers.refuse_unproven(tx, self._r.secrets, principal, machine_id, secret)
                if request.ended:
                    gone = await end_process(tx, actor=principal.key_id, machine_id=machine_id, name=request.name)
                    return pb.HeartbeatProcessResponse(process=None if gone is None else render.process(gone, None))
                beat = await beat_process(tx, actor=principal.key_id, machine_id=machine_id, name=request.name)
        except NoPlaceError as refusal:
            await tell_no_place(self._r, principal, refusal)
            raise
        process = render.process(beat.process, beat.terms.heartbeat_interval)
        return pb.HeartbeatProcessResponse(process=process, started=beat.started)

    async def IssueMachineFile(
        self, request: pb.IssueMachineFileRequest, context: CallContext
    ) -> pb.IssueMachineFileResponse:
        fields.check(request)
        principal = context.principal

        async def work(tx: Transaction) -> pb.IssueMachineFileResponse:
            await callers.refuse_unproven(tx, self._r.secrets, principal, request.machine_id, request.machine_secret)
            made = await issue_machine_file(
                tx,
                self._r.fingerprints,
                lambda machine, seq: signed_file(self._r.calls, context, request, machine, seq),
                actor=principal.key_id,
                machine_id=request.machine_id,
                fingerprint=request.fingerprint,
                reason=request.reason,
            )
            file = made.signed.file
            return pb.IssueMachineFileResponse(
                machine=callers.shown(principal, render.machine(made.machine, made.terms, tx.now)),
                machine_file_id=file.machine_file_id,
                file=made.signed.text,
                key_set_id=made.signed.key_set_id,
                seq=file.seq,
                start_time=timestamp(file.not_before),
                expire_time=timestamp(file.expires_at),
            )

        return await self._r.writer.run(context, request, pb.IssueMachineFileResponse, work)

    async def ReturnMachineFile(
        self, request: pb.ReturnMachineFileRequest, context: CallContext
    ) -> pb.ReturnMachineFileResponse:
        fields.check(request)
        principal = context.principal

        async def work(tx: Transaction) -> pb.ReturnMachineFileResponse:
            await callers.refuse_unproven(tx, self._r.secrets, principal, request.machine_id, request.machine_secret)
            back = await return_machine_file(
                tx, actor=principal.key_id, machine_id=request.machine_id, reason=request.reason
            )
            machine = callers.shown(principal, render.machine(*back, tx.now))
            return pb.ReturnMachineFileResponse(machine=machine)

        return await self._r.writer.run(context, request, pb.ReturnMachineFileResponse, work)

    def _new_machine(self, request: pb.ActivateMachineRequest, context: CallContext) -> NewMachine:
        tenant, hasher = context.principal.tenant, self._r.fingerprints
        parts = named_hashes(hasher, tenant, request.components)
        return NewMachine(
            identity_of(hasher, context, request.identity),
            external_id=request.external_id or None,
            display_name=request.display_name,
            hostname=request.hostname,
            platform=platform(request.platform),
            ip=request.ip,
            cores=request.cores if request.HasField("cores") else None,
            memory_bytes=request.memory_bytes if request.HasField("memory_bytes") else None,
            disk_bytes=request.disk_bytes if request.HasField("disk_bytes") else None,
            user_id=request.user_id or None,
            components={name: hashes[0] for name, hashes in parts.items()},
            labels=dict(request.labels),
            metadata=MessageToDict(request.metadata),
        )

    def _activated(self, context: CallContext, made: Activated, tx: Transaction) -> pb.ActivateMachineResponse:
        principal = context.principal
        return pb.ActivateMachineResponse(
            machine=callers.shown(principal, render.machine(made.machine, made.terms, tx.now)),
            already_active=made.already_active,
            machine_secret=self._r.secrets.of(principal.tenant, made.machine.machine_id),
            heartbeat=render.heartbeat(made.machine, made.terms, tx.now),
            seats=render.seat_count(made.seats, made.terms),
            overage=made.overage,
            evicted_machine_ids=[gone.machine_id for gone in made.evicted],
        )
