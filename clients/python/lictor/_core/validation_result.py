"""What a validation says, as Python values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from lictor.common.v1.common_pb2 import Decision
from lictor.license.v1 import validation_service_pb2 as pb
from lictor.license.v1.license_service_pb2 import License
from lictor.license.v1.validation_service_pb2 import ExceededLimit, SeatCounts

from .convert import enum_name, moment_of


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The verdict on a license; true in a condition exactly when `valid` is."""

    valid: bool
    code: str
    """`VALID`, or the first check that failed (`EXPIRED`); a code newer than this client reads `UNKNOWN_320`."""
    all_codes: tuple[str, ...]
    """Every check that failed, in order; `VALID` alone when none did."""
    license_id: str
    product_id: str
    policy_id: str
    expire_time: datetime | None
    """When the license expires; None means never, not yet known, or not found."""
    grace_end_time: datetime | None
    """Until when it may be used though it has expired; None without a grace period."""
    check_in_due_time: datetime | None
    """When it must have checked in; None where it need not."""
    uses_left: int | None
    """How many uses are left; None means unlimited, or not found."""
    is_trial: bool
    tier_id: str
    tier: str
    """The slug of the license's tier; empty when it has none."""
    entitlements: tuple[str, ...]
    """The entitlements that the license has, by the keys of their features."""
    missing: tuple[str, ...]
    """The entitlements that were asked for and that it lacks."""
    machine_id: str
    """The machine that was found; empty where none was asked for, or none found."""
    heartbeat_status: str
    """`NOT_STARTED`, `ALIVE` or `DEAD`; empty where no machine was found."""
    seats: SeatCounts | None
    """What the license's machines are and have in all, where anything asks for that."""
    exceeded: tuple[ExceededLimit, ...]
    """The limits that they exceed; a warning where `valid` is true."""
    detail: str
    """A sentence for people."""
    evaluated_at: datetime
    """The moment at which the facts behind the verdict held."""
    decision: Decision = field(repr=False)
    license: License | None = field(default=None, repr=False)
    """The license, where `view` asked for it."""

    def __bool__(self) -> bool:
        return self.valid


def verdict(answer: pb.ValidateLicenseResponse) -> ValidationResult:
    """The result of one answer."""
    return ValidationResult(
        valid=answer.valid,
        code=enum_name(pb.ValidationCode.Code, answer.code),
        all_codes=tuple(enum_name(pb.ValidationCode.Code, code) for code in answer.all_codes),
        license_id=answer.license_id,
        product_id=answer.product_id,
        policy_id=answer.policy_id,
        expire_time=moment_of(answer.expire_time) if answer.HasField("expire_time") else None,
        grace_end_time=moment_of(answer.grace_end_time) if answer.HasField("grace_end_time") else None,
        check_in_due_time=moment_of(answer.check_in_due_time) if answer.HasField("check_in_due_time") else None,
        uses_left=answer.uses_left if answer.HasField("uses_left") else None,
        is_trial=answer.is_trial,
        tier_id=answer.tier_id,
        tier=answer.tier,
        entitlements=tuple(answer.entitlements),
        missing=tuple(answer.missing),
        machine_id=answer.machine_id,
        heartbeat_status=enum_name(pb.MachineHeartbeat.Status, answer.heartbeat_status) if answer.machine_id else "",
        seats=answer.seats if answer.HasField("seats") else None,
        exceeded=tuple(answer.exceeded),
        detail=answer.detail,
        evaluated_at=moment_of(answer.decision.evaluated_at),
        decision=answer.decision,
        license=answer.license if answer.HasField("license") else None,
    )
