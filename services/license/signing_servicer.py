"""SigningService: protobuf to model and back, nothing else."""

from __future__ import annotations

from lictor.license.v1 import signing_service_pb2 as pb

from services.license import fields
from services.license.commands.sign_machine_file import MachineOfFile, sign_machine_file
from services.license.resources import Resources
from shared.db.pool import Transaction
from shared.rpc.context import CallContext
from shared.rpc.fields import to_timedelta
from shared.rpc.render import timestamp


class SigningServicer:
    """Signatures for the other services."""

    def __init__(self, resources: Resources) -> None:
        self._r = resources

    async def SignFile(self, request: pb.SignFileRequest, context: CallContext) -> pb.SignFileResponse:
        fields.check(request)

        async def work(tx: Transaction) -> pb.SignFileResponse:
            file_id, done = await sign_machine_file(
                tx,
                self._r.signers,
                self._r.keeper,
                actor=context.principal.key_id,
                license_id=request.license_id,
                machine=MachineOfFile(request.machine_id, request.fingerprint, request.seq),
                ttl=to_timedelta(request, "ttl"),
                license_key=request.license_key,
            )
            return pb.SignFileResponse(
                file_id=file_id,
                file=done.text,
                signing_key_id=done.signing_key_id,
                key_set_id=done.key_set.key_set_id,
                revocation_epoch=done.key_set.revocation_epoch,
                issue_time=timestamp(done.at),
                start_time=timestamp(done.span.not_before),
                expire_time=timestamp(done.span.expires_at),
            )

        return await self._r.writer.run(context, request, pb.SignFileResponse, work)
