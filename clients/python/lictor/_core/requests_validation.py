"""The calls of ValidationService, and their result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lictor.common.v1.common_pb2 import Decision, LicenseSelector, View
from lictor.license.v1 import validation_service_pb2 as pb
from lictor.license.v1.license_service_pb2 import License

from .convert import enum_name, enum_value, moment_of, several
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
        grace_end_time=moment_of(answer.grace_end_time) if answer.HasField("grace_end_time") else None,
        check_in_due_time=moment_of(answer.check_in_due_time) if answer.HasField("check_in_due_time") else None,
        uses_left=answer.uses_left if answer.HasField("uses_left") else None,
        is_trial=answer.is_trial,
        tier_id=answer.tier_id,
        tier=answer.tier,
        entitlements=tuple(answer.entitlements),
        missing=tuple(answer.missing),
        detail=answer.detail,
        evaluated_at=moment_of(answer.decision.evaluated_at),
        decision=answer.decision,
        license=answer.license if answer.HasField("license") else None,
    )


def _user(customer_id: str, email: str, subject_ref: str) -> pb.UserScope | None:
    if sum(bool(name) for name in (customer_id, email, subject_ref)) > 1:
        raise ValueError("name the user in one way: customer_id, customer_email or subject_ref")
    if customer_id:
        return pb.UserScope(customer_id=customer_id)
    if email:
        return pb.UserScope(email=email)
    return pb.UserScope(subject_ref=subject_ref) if subject_ref else None


def validate(
    *,
    key: str | None = None,
    license_id: str | None = None,
    product: str = "",
    policy_id: str = "",
    required_tier: str = "",
    customer_id: str = "",
    customer_email: str = "",
    subject_ref: str = "",
    entitlements: Iterable[str] | None = None,
    view: str | View.Kind.ValueType | None = None,
    timeout_s: float | None = None,
) -> Prepared[ValidationResult]:
    """Asks whether a license may be used now; give exactly one of `key` and `license_id`.

    Every verdict is a result, an unknown key too; an error means that it could not be decided.
    `product`, an id or a code, and `policy_id` ask for a license of theirs, `customer_id`, `customer_email` or `subject_ref`
    for one that this customer holds, `entitlements=["export"]` for one that has them all, and `required_tier="pro"` for one
    of that tier, or of a higher one of its product.
    `view="BASIC"` or `"FULL"` brings the license along.
    """
    if key is not None and license_id is None:
        selector = LicenseSelector(license_key=key)
    elif license_id is not None and key is None:
        selector = LicenseSelector(license_id=license_id)
    else:
        raise ValueError("validate takes exactly one of key and license_id")
    request = pb.ValidateLicenseRequest(
        license=selector,
        view=enum_value(View.Kind, view),
        product=product,
        policy_id=policy_id,
        required_tier=required_tier,
        user=_user(customer_id, customer_email, subject_ref),
        required_entitlements=None
        if entitlements is None
        else pb.EntitlementsScope(feature_keys=several(entitlements)),
    )
    return read(_SERVICE + "ValidateLicense", request, pb.ValidateLicenseResponse, _verdict, timeout_s, hot=True)
