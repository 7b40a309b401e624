"""Machine files are signed by the license service, which has the keys and the last word on the license."""

from __future__ import annotations

from datetime import UTC
from typing import Final
from uuid import uuid4

from lictor.license.v1.signing_service_pb2 import SignFileRequest, SignFileResponse
from lictor.machine.v1 import activation_service_pb2 as pb

from services.machine.commands.issue_machine_file import SignedFile
from services.machine.file_store import MachineFile
from services.machine.model import Machine
from shared.rpc.client import ServiceCaller
from shared.rpc.context import CallContext

SIGN_FILE: Final = "/lictor.license.v1.SigningService/SignFile"


async def signed_file(
    calls: ServiceCaller, context: CallContext, asked: pb.IssueMachineFileRequest, machine: Machine, seq: int
) -> SignedFile:
    """The file of a machine with a number. What SignFile refuses it for, such as OFFLINE_NOT_ALLOWED."""
    request = SignFileRequest(
        # Not the caller's: what is asked with that again may be numbered otherwise by then.
        request_id=str(uuid4()),
        license_id=machine.license_id,
        machine_id=machine.machine_id,
        fingerprint=asked.fingerprint,
        seq=seq,
        license_key=asked.license_key,
    )
    if asked.HasField("ttl"):
        request.ttl.CopyFrom(asked.ttl)
    made = await calls.call(SIGN_FILE, request, SignFileResponse, context)
    issued_at, not_before, expires_at = (
        time.ToDatetime(UTC) for time in (made.issue_time, made.start_time, made.expire_time)
    )
    file = MachineFile(
        machine.machine_id, seq, made.file_id, made.signing_key_id, issued_at, not_before, expires_at,
        bool(asked.license_key),
    )  # fmt: skip
    return SignedFile(file, made.file, made.key_set_id)
