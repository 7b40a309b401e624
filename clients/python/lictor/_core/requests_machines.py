"""The calls of MachineService and ActivationService."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from lictor.common.v1.common_pb2 import LicenseSelector, NamedFingerprint
from lictor.machine.v1 import activation_service_pb2 as activation_pb
from lictor.machine.v1 import machine_pb2
from lictor.machine.v1 import machine_service_pb2 as pb

from .convert import (
    UNSET,
    JsonValue,
    MachineLike,
    Unset,
    duration,
    enum_value,
    fresh,
    given,
    machine_identity,
    mask,
    struct,
)
from .prepared import Listing, Prepared, page, read, write

_MACHINES: Final = "/lictor.machine.v1.MachineService/"
_ACTIVATIONS: Final = "/lictor.machine.v1.ActivationService/"
Labels = Mapping[str, str]
Metadata = Mapping[str, JsonValue]
PlatformLike = str | machine_pb2.Platform.Kind.ValueType
StatusLike = str | machine_pb2.MachineStatus.Status.ValueType


def activate(
    *,
    fingerprint: MachineLike,
    key: str | None = None,
    license_id: str | None = None,
    external_id: str = "",
    display_name: str = "",
    hostname: str = "",
    platform: PlatformLike | None = None,
    ip: str = "",
    cores: int | None = None,
    memory_bytes: int | None = None,
    disk_bytes: int | None = None,
    user_id: str = "",
    components: Mapping[str, str] | None = None,
    labels: Labels | None = None,
    metadata: Metadata | None = None,
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[activation_pb.ActivateMachineResponse]:
    """Takes a seat of a license for a machine, or finds the one that it has. The answer's `machine_secret` proves the machine.

    Without `key` and `license_id` it is the license that the client's own license key is of.
    """
    if key is not None and license_id is not None:
        raise ValueError("a license is named by its key or by its id, and not by both")
    selector = LicenseSelector(license_key=key) if key is not None else LicenseSelector(license_id=license_id or "")
    request = activation_pb.ActivateMachineRequest(
        request_id=fresh(request_id),
        license=None if key is None and license_id is None else selector,
        identity=machine_identity(fingerprint),
        external_id=external_id,
        display_name=display_name,
        hostname=hostname,
        platform=enum_value(machine_pb2.Platform.Kind, platform),
        ip=ip,
        cores=cores,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        user_id=user_id,
        components=[NamedFingerprint(name=name, fingerprint=value) for name, value in (components or {}).items()],
        labels=labels,
        metadata=struct(metadata),
    )
    return write(_ACTIVATIONS + "ActivateMachine", request, activation_pb.ActivateMachineResponse, timeout_s)


def deactivate(
    machine_id: str,
    *,
    machine_secret: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[activation_pb.DeactivateSelfResponse]:
    """Gives the seat of a machine up, as the machine itself: with its secret, or by the license key."""
    request = activation_pb.DeactivateSelfRequest(
        request_id=fresh(request_id), machine_id=machine_id, machine_secret=machine_secret, reason=reason
    )
    return write(_ACTIVATIONS + "DeactivateSelf", request, activation_pb.DeactivateSelfResponse, timeout_s)


def heartbeat(
    machine_id: str, *, machine_secret: str = "", timeout_s: float | None = None
) -> Prepared[activation_pb.HeartbeatMachineResponse]:
    """Says that a machine is there."""
    request = activation_pb.HeartbeatMachineRequest(machine_id=machine_id, machine_secret=machine_secret)
    kind = activation_pb.HeartbeatMachineResponse
    return read(_ACTIVATIONS + "HeartbeatMachine", request, kind, lambda answer: answer, timeout_s, hot=True)


def issue_machine_file(
    machine_id: str,
    *,
    fingerprint: str,
    ttl: timedelta | None = None,
    license_key: str = "",
    machine_secret: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[activation_pb.IssueMachineFileResponse]:
    """Issues a file that proves a machine's seat offline, encrypted where `license_key` is given. Save `file`, and verify it
    with `lictor.verify_machine_file`."""
    request = activation_pb.IssueMachineFileRequest(
        request_id=fresh(request_id),
        machine_id=machine_id,
        machine_secret=machine_secret,
        fingerprint=fingerprint,
        ttl=duration(ttl),
        license_key=license_key,
        reason=reason,
    )
    return write(_ACTIVATIONS + "IssueMachineFile", request, activation_pb.IssueMachineFileResponse, timeout_s)


def return_machine_file(
    machine_id: str,
    *,
    machine_secret: str = "",
    reason: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[activation_pb.ReturnMachineFileResponse]:
    """Says that a machine is back before its file has ended."""
    request = activation_pb.ReturnMachineFileRequest(
        request_id=fresh(request_id), machine_id=machine_id, machine_secret=machine_secret, reason=reason
    )
    return write(_ACTIVATIONS + "ReturnMachineFile", request, activation_pb.ReturnMachineFileResponse, timeout_s)


def get_machine(
    machine_id: str = "", *, external_id: str = "", timeout_s: float | None = None
) -> Prepared[machine_pb2.Machine]:
    """Reads a machine by its id or your own key of it."""
    request = pb.GetMachineRequest(machine_id=machine_id, external_id=external_id)
    return read(_MACHINES + "GetMachine", request, pb.GetMachineResponse, lambda answer: answer.machine, timeout_s)


def list_machines(
    *,
    license_id: str = "",
    product_id: str = "",
    policy_id: str = "",
    user_id: str = "",
    status: StatusLike | None = None,
    page_size: int = 0,
    page_token: str = "",
    timeout_s: float | None = None,
) -> Listing[pb.ListMachinesResponse, machine_pb2.Machine]:
    """Lists machines, oldest first; each filter that is given narrows the list."""

    def ask(token: str) -> Prepared[pb.ListMachinesResponse]:
        request = pb.ListMachinesRequest(
            page_size=page_size,
            page_token=token,
            license_id=license_id,
            product_id=product_id,
            policy_id=policy_id,
            user_id=user_id,
            status=enum_value(machine_pb2.MachineStatus.Status, status),
        )
        return page(_MACHINES + "ListMachines", request, pb.ListMachinesResponse, timeout_s)

    return Listing(ask, lambda answer: answer.machines, page_token)


def update_machine(
    machine_id: str,
    *,
    external_id: str | Unset | None = UNSET,
    display_name: str | Unset | None = UNSET,
    hostname: str | Unset | None = UNSET,
    platform: PlatformLike | Unset | None = UNSET,
    ip: str | Unset | None = UNSET,
    cores: int | Unset | None = UNSET,
    memory_bytes: int | Unset | None = UNSET,
    disk_bytes: int | Unset | None = UNSET,
    user_id: str | Unset | None = UNSET,
    labels: Labels | Unset | None = UNSET,
    metadata: Metadata | Unset | None = UNSET,
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.UpdateMachineResponse]:
    """Changes the fields that are given; `None` clears one."""
    request = pb.UpdateMachineRequest(
        request_id=fresh(request_id),
        machine_id=machine_id,
        update_mask=mask(
            external_id=external_id, display_name=display_name, hostname=hostname, platform=platform, ip=ip, cores=cores,
            memory_bytes=memory_bytes, disk_bytes=disk_bytes, user_id=user_id, labels=labels, metadata=metadata,
        ),
        etag=etag,
        external_id=given(external_id, None) or "",
        display_name=given(display_name, None) or "",
        hostname=given(hostname, None) or "",
        platform=enum_value(machine_pb2.Platform.Kind, given(platform, None)),
        ip=given(ip, None) or "",
        cores=given(cores, None),
        memory_bytes=given(memory_bytes, None),
        disk_bytes=given(disk_bytes, None),
        user_id=given(user_id, None) or "",
        labels=given(labels, None),
        metadata=struct(given(metadata, None)),
    )  # fmt: skip
    return write(_MACHINES + "UpdateMachine", request, pb.UpdateMachineResponse, timeout_s)


def deactivate_machine(
    machine_id: str, *, reason: str = "", etag: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.DeactivateMachineResponse]:
    """Takes a machine's seat away; when this returns, no validation that starts later knows the machine."""
    request = pb.DeactivateMachineRequest(request_id=fresh(request_id), machine_id=machine_id, etag=etag, reason=reason)
    return write(_MACHINES + "DeactivateMachine", request, pb.DeactivateMachineResponse, timeout_s)


def transfer_machine(
    machine_id: str,
    *,
    fingerprint: MachineLike,
    display_name: str = "",
    hostname: str = "",
    platform: PlatformLike | None = None,
    reason: str = "",
    etag: str = "",
    request_id: str | None = None,
    timeout_s: float | None = None,
) -> Prepared[pb.TransferMachineResponse]:
    """Passes a machine's seat to the machine with this fingerprint."""
    request = pb.TransferMachineRequest(
        request_id=fresh(request_id),
        machine_id=machine_id,
        etag=etag,
        identity=machine_identity(fingerprint),
        display_name=display_name,
        hostname=hostname,
        platform=enum_value(machine_pb2.Platform.Kind, platform),
        reason=reason,
    )
    return write(_MACHINES + "TransferMachine", request, pb.TransferMachineResponse, timeout_s)


def reset_machine_heartbeat(
    machine_id: str, *, reason: str = "", etag: str = "", request_id: str | None = None, timeout_s: float | None = None
) -> Prepared[pb.ResetMachineHeartbeatResponse]:
    """Begins a machine's heartbeats anew."""
    request = pb.ResetMachineHeartbeatRequest(
        request_id=fresh(request_id), machine_id=machine_id, etag=etag, reason=reason
    )
    return write(_MACHINES + "ResetMachineHeartbeat", request, pb.ResetMachineHeartbeatResponse, timeout_s)
