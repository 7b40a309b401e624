"""The calls of ValidationService, and their result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from lictor.common.v1.common_pb2 import NamedFingerprint, View
from lictor.license.v1 import validation_service_pb2 as pb

from .convert import MachineLike, enum_value, machine_identity, several
from .errors import LictorError, error_of_status
from .prepared import Prepared, read
from .validation_result import ValidationResult, verdict

_SERVICE: Final = "/lictor.license.v1.ValidationService/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What to validate, and what is asked of it: one of `key` and `license_id`, and any of the others.

    A client with a `license_key` of its own gives neither, and asks about the license of that key.

    `product`, an id or a code, and `policy_id` ask for a license of theirs; `customer_id`, `customer_email` or `subject_ref` for
    one that this customer holds; `entitlements=["export"]` for one that has them all; `required_tier="pro"` for one of that
    tier, or of a higher one of its product.

    `fingerprint` shows the machine as it was activated: one fingerprint, several by name, or what `fingerprint()` made. With
    `workload=True` it is known by the certificate that the client has shown. `machine_id` names it by its id, and
    `components` its parts, by name.
    """

    key: str | None = field(default=None, repr=False)
    license_id: str | None = None
    product: str = ""
    policy_id: str = ""
    required_tier: str = ""
    customer_id: str = ""
    customer_email: str = ""
    subject_ref: str = ""
    entitlements: Iterable[str] | None = None
    fingerprint: MachineLike | None = field(default=None, repr=False)
    workload: bool = False
    machine_id: str = ""
    components: Mapping[str, str] | None = field(default=None, repr=False)

    def request(self) -> pb.ValidateLicenseRequest:
        """The same as a message. ValueError where it names too much, or too little."""
        if self.key is not None and self.license_id is not None:
            raise ValueError("a validation takes one of key and license_id, not both")
        names = (self.customer_id, self.customer_email, self.subject_ref)
        if sum(bool(name) for name in names) > 1:
            raise ValueError("name the user in one way: customer_id, customer_email or subject_ref")
        if self.fingerprint is not None and self.workload:
            raise ValueError("show the machine in one way: fingerprint or workload")
        request = pb.ValidateLicenseRequest(
            product=self.product,
            policy_id=self.policy_id,
            required_tier=self.required_tier,
            machine_id=self.machine_id,
            identity=None if self.fingerprint is None else machine_identity(self.fingerprint),
        )
        if self.workload:
            request.identity.workload.SetInParent()
        if self.components is not None:
            request.components.SetInParent()
            request.components.components.extend(
                NamedFingerprint(name=name, fingerprint=value) for name, value in self.components.items()
            )
        if self.key is not None:
            request.license.license_key = self.key
        elif self.license_id is not None:
            request.license.license_id = self.license_id
        for name, value in zip(("customer_id", "email", "subject_ref"), names, strict=True):
            if value:
                setattr(request.user, name, value)
        if self.entitlements is not None:
            request.required_entitlements.SetInParent()
            request.required_entitlements.feature_keys.extend(several(self.entitlements))
        return request


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
    fingerprint: MachineLike | None = None,
    workload: bool = False,
    machine_id: str = "",
    components: Mapping[str, str] | None = None,
    view: str | View.Kind.ValueType | None = None,
    fully_consistent: bool = False,
    timeout_s: float | None = None,
) -> Prepared[ValidationResult]:
    """Asks whether a license may be used now; the arguments are those of `Validation`.

    Every verdict is a result, an unknown key too; an error means that it could not be decided.
    `view="BASIC"` or `"FULL"` brings the license along. The answer knows of every change that took a right away and has
    returned, and of the last write of this client; with `fully_consistent` it is the record's.
    """
    asked = Validation(
        key=key,
        license_id=license_id,
        product=product,
        policy_id=policy_id,
        required_tier=required_tier,
        customer_id=customer_id,
        customer_email=customer_email,
        subject_ref=subject_ref,
        entitlements=entitlements,
        fingerprint=fingerprint,
        workload=workload,
        machine_id=machine_id,
        components=components,
    )
    request = asked.request()
    request.view = enum_value(View.Kind, view)
    if fully_consistent:
        request.consistency.fully_consistent.SetInParent()
    return read(_SERVICE + "ValidateLicense", request, pb.ValidateLicenseResponse, verdict, timeout_s, hot=True)


def validate_batch(
    validations: Iterable[Validation],
    *,
    view: str | View.Kind.ValueType | None = None,
    fully_consistent: bool = False,
    timeout_s: float | None = None,
) -> Prepared[tuple[ValidationResult | LictorError, ...]]:
    """Asks for up to 1,000 licenses at one state of the record (100 with `view="FULL"`); the results are in their order.

    An item that could not be decided has its error in its place; it is not raised.
    """
    request = pb.BatchValidateLicensesRequest(
        requests=[one.request() for one in validations], view=enum_value(View.Kind, view)
    )
    if fully_consistent:
        request.consistency.fully_consistent.SetInParent()
    return read(
        _SERVICE + "BatchValidateLicenses", request, pb.BatchValidateLicensesResponse, _verdicts, timeout_s, hot=True
    )


def _verdicts(answer: pb.BatchValidateLicensesResponse) -> tuple[ValidationResult | LictorError, ...]:
    return tuple(
        verdict(result.response) if result.HasField("response") else error_of_status(result.status)
        for result in answer.results
    )


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict and every check behind it, in the order in which they decide."""

    verdict: ValidationResult
    checks: tuple[pb.ExplainedCheck, ...]
    """Each has a `name`, a `code`, an `outcome`, the `inputs` that it looked at, and a `hint`."""


def explain_validation(validation: Validation, *, timeout_s: float | None = None) -> Prepared[Explanation]:
    """Asks how a validation comes to its verdict. It counts nothing."""
    request = pb.ExplainValidationRequest(validation=validation.request())
    return read(_SERVICE + "ExplainValidation", request, pb.ExplainValidationResponse, _explanation, timeout_s)


def _explanation(answer: pb.ExplainValidationResponse) -> Explanation:
    return Explanation(verdict(answer.verdict), tuple(answer.checks))
