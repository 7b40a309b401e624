"""The calls of ValidationService, and their result."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lictor.common.v1.common_pb2 import Decision, LicenseSelector, View
from lictor.license.v1 import validation_service_pb2 as pb
from lictor.license.v1.license_service_pb2 import License

from .convert import enum_name, enum_value, moment_of
from .prepared import Prepared, read

_SERVICE: Final = "/lictor.license.v1.ValidationService/"


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
    """When the license expires; None means never, or not found."""
    is_trial: bool
    tier_id: str
    tier: str
    """The slug of the license's tier; empty when it has none."""
    detail: str
    """A sentence for people."""
    evaluated_at: datetime
    """The moment at which the facts behind the verdict held."""
    decision: Decision = field(repr=False)
    license: License | None = field(default=None, repr=False)
    """The license, where `view` asked for it."""

    def __bool__(self) -> bool:
        return self.valid


def _verdict(answer: pb.ValidateLicenseResponse) -> ValidationResult:
    return ValidationResult(
        valid=answer.valid,
        code=enum_name(pb.ValidationCode.Code, answer.code),
        all_codes=tuple(enum_name(pb.ValidationCode.Code, code) for code in answer.all_codes),
        license_id=answer.license_id,
        product_id=answer.product_id,
        policy_id=answer.policy_id,
        expire_time=moment_of(answer.expire_time) if answer.HasField("expire_time") else None,
        is_trial=answer.is_trial,
        tier_id=answer.tier_id,
        tier=answer.tier,
        detail=answer.detail,
        evaluated_at=moment_of(answer.decision.evaluated_at),
        decision=answer.decision,
        license=answer.license if answer.HasField("license") else None,
    )


def validate(
    *,
    key: str | None = None,
    license_id: str | None = None,
    required_tier: str = "",
    view: str | View.Kind.ValueType | None = None,
    timeout_s: float | None = None,
) -> Prepared[ValidationResult]:
    """Asks whether a license may be used now; give exactly one of `key` and `license_id`.

    Every verdict is a result, an unknown key too; an error means that it could not be decided.
    `required_tier="pro"` asks for a license of that tier, or of a higher one of its product.
    `view="BASIC"` or `"FULL"` brings the license along.
    """
    if key is not None and license_id is None:
        selector = LicenseSelector(license_key=key)
    elif license_id is not None and key is None:
        selector = LicenseSelector(license_id=license_id)
    else:
        raise ValueError("validate takes exactly one of key and license_id")
    request = pb.ValidateLicenseRequest(license=selector, view=enum_value(View.Kind, view), required_tier=required_tier)
    return read(_SERVICE + "ValidateLicense", request, pb.ValidateLicenseResponse, _verdict, timeout_s, hot=True)
