"""The constraints of this service's requests, one table per message; the protos' comments say the same in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.message import Message
from lictor.machine.v1 import activation_service_pb2 as activation
from lictor.machine.v1 import machine_service_pb2 as machines

from services.machine.leases import LEAST_GRACE, LEAST_TTL, MOST_GRACE, MOST_TTL, MOST_WAIT
from shared.errors import FieldViolation
from shared.rpc import fields as f
from shared.rpc.selectors import one_identity, one_selector, parts

MACHINE_FIELDS: Final = (
    "external_id", "display_name", "hostname", "platform", "ip", "cores", "memory_bytes", "disk_bytes", "user_id", "labels",
    "metadata",
)  # fmt: skip

MIN_FILE_TTL: Final = timedelta(hours=1)
MAX_FILE_TTL: Final = timedelta(days=90)
_ID_CHARS: Final = 64
_SECRET_CHARS: Final = 64
_NAME_CHARS: Final = 64
_RID: Final = f.request_id()
_ID: Final = f.text("machine_id", required=True, max_chars=_ID_CHARS)
_ETAG: Final = f.text("etag", max_chars=_ID_CHARS)
_REASON: Final = f.text("reason")
_SECRET: Final = f.text("machine_secret", max_chars=_SECRET_CHARS)
_SEEN: Final = (f.text("display_name"), f.text("hostname"), f.known_enum("platform"))


def _address(message: Any) -> Iterator[FieldViolation]:
    if message.ip:
        try:
            ip_address(message.ip)
        except ValueError:
            yield FieldViolation("ip", "ADDRESS_INVALID", "must be an IPv4 or IPv6 address")


_OF_A_MACHINE: Final = (
    f.text("external_id"), *_SEEN, _address, f.number("cores", least=1), f.number("memory_bytes", least=1),
    f.number("disk_bytes", least=1), f.text("user_id", max_chars=_ID_CHARS), f.labels(), f.metadata(),
)  # fmt: skip

_WAIT: Final = f.duration("wait", least=timedelta(0), most=MOST_WAIT)
_TTL: Final = f.duration("ttl", least=LEAST_TTL, most=MOST_TTL)
_HELD_BY: Final = (
    one_selector, one_identity("identity", needed=True), *_SEEN, f.number("cores", least=1), f.number("memory_bytes", least=1),
    f.number("disk_bytes", least=1), f.text("user_id", max_chars=_ID_CHARS),
)  # fmt: skip


def _epoch(message: Any) -> Iterator[FieldViolation]:
    if message.epoch < 1:
        yield FieldViolation("epoch", "REQUIRED" if not message.epoch else "OUT_OF_RANGE", "must be at least 1")


def _process_name(message: Any) -> Iterator[FieldViolation]:
    if not message.name:
        yield FieldViolation("name", "REQUIRED", "is required")
    elif not message.name.isprintable():
        yield FieldViolation("name", "FORMAT_INVALID", "must be printable characters")
    elif len(message.name) > _NAME_CHARS:
        yield FieldViolation("name", "LENGTH_OUT_OF_RANGE", f"must be 1 to {_NAME_CHARS} characters")


TABLES: Final[Mapping[type[Message], tuple[f.Check, ...]]] = MappingProxyType(
    {
        activation.ActivateMachineRequest: (
            _RID, one_selector, one_identity("identity", needed=True), *_OF_A_MACHINE, parts("components"),
        ),
        activation.DeactivateSelfRequest: (_RID, _ID, _SECRET, _REASON),
        activation.HeartbeatMachineRequest: (_ID, _SECRET),
        activation.HeartbeatProcessRequest: (_ID, _SECRET, _process_name),
        activation.AcquireSeatRequest: (_RID, *_HELD_BY, _TTL, _WAIT),
        activation.HoldSeatRequest: (
            *_HELD_BY, f.duration("grace", least=LEAST_GRACE, most=MOST_GRACE), f.text("resume_token"),
        ),
        activation.RenewSeatRequest: (_RID, _ID, _SECRET, _epoch, _TTL),
        activation.ReleaseSeatRequest: (_RID, _ID, _SECRET, _epoch, _REASON),
        activation.IssueMachineFileRequest: (
            _RID, _ID, _SECRET, f.text("fingerprint", required=True, min_chars=8, max_chars=256),
            f.duration("ttl", least=MIN_FILE_TTL, most=MAX_FILE_TTL, reason="TTL_OUT_OF_RANGE"), f.text("license_key"), _REASON,
        ),
        activation.ReturnMachineFileRequest: (_RID, _ID, _SECRET, _REASON),
        machines.GetMachineRequest: (
            f.one_of_id("machine_id"), f.text("machine_id", max_chars=_ID_CHARS), f.text("external_id"),
        ),
        machines.ListMachinesRequest: (
            f.page_size(), f.text("page_token", max_chars=512),
            *(f.text(name, max_chars=_ID_CHARS) for name in ("license_id", "product_id", "policy_id", "user_id")),
            f.known_enum("status"),
        ),
        machines.ListSeatsRequest: (
            f.page_size(), f.text("page_token", max_chars=512), f.text("license_id", required=True, max_chars=_ID_CHARS),
        ),
        machines.ListProcessesRequest: (
            f.page_size(), f.text("page_token", max_chars=512), f.text("license_id", required=True, max_chars=_ID_CHARS),
            f.text("machine_id", max_chars=_ID_CHARS),
        ),
        machines.EvictSeatRequest: (_RID, _ID, _ETAG, _REASON),
        machines.UpdateMachineRequest: (_RID, _ID, _ETAG, f.mask(MACHINE_FIELDS), *_OF_A_MACHINE),
        machines.DeactivateMachineRequest: (_RID, _ID, _ETAG, _REASON),
        machines.TransferMachineRequest: (_RID, _ID, _ETAG, one_identity("identity", needed=True), *_SEEN, _REASON),
        machines.ResetMachineHeartbeatRequest: (_RID, _ID, _ETAG, _REASON),
    }
)  # fmt: skip


def check(request: Message) -> None:
    """Raises FIELD_INVALID naming every bad field of a request of this service."""
    f.check(request, TABLES[type(request)])
