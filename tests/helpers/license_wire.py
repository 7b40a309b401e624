"""What the model is asked for, in the words of the contract, and how an answer must show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from lictor.common.v1.common_pb2 import LicenseSelector
from lictor.license.v1 import catalog_service_pb2 as catalog
from lictor.license.v1 import customer_service_pb2 as customers
from lictor.license.v1 import license_service_pb2 as licenses
from lictor.license.v1 import validation_service_pb2 as validation

from tests.helpers import license_model as model
from tests.helpers.builders import at
from tests.helpers.license_acts import Act

MAX_MACHINES: Final = 2
"""What each policy lets its licenses have, which the model knows nothing else of: they have none."""

REQUESTS: Final[Mapping[str, type[Message]]] = {
    "create_product": catalog.CreateProductRequest, "create_tier": catalog.CreateTierRequest,
    "update_tier": catalog.UpdateTierRequest, "delete_tier": catalog.DeleteTierRequest,
    "create_policy": catalog.CreatePolicyRequest, "update_policy": catalog.UpdatePolicyRequest,
    "delete_policy": catalog.DeletePolicyRequest, "ban_customer": customers.BanCustomerRequest,
    "unban_customer": customers.UnbanCustomerRequest, "update_customer": customers.UpdateCustomerRequest,
    "create": licenses.CreateLicenseRequest, "suspend": licenses.SuspendLicenseRequest,
    "reinstate": licenses.ReinstateLicenseRequest, "renew": licenses.RenewLicenseRequest,
    "revoke": licenses.RevokeLicenseRequest, "ban": licenses.BanLicenseRequest, "update": licenses.UpdateLicenseRequest,
    "change_tier": licenses.ChangeTierRequest, "change_policy": licenses.ChangePolicyRequest,
    "transfer": licenses.TransferLicenseRequest, "rotate_key": licenses.RotateLicenseKeyRequest,
    "delete": licenses.DeleteLicenseRequest, "check_in": licenses.CheckInLicenseRequest,
    "increment_uses": licenses.IncrementUsesRequest, "decrement_uses": licenses.DecrementUsesRequest,
    "reset_uses": licenses.ResetUsesRequest, "validate": validation.ValidateLicenseRequest,
}  # fmt: skip


def request_of(act: Act) -> Message:
    """The act as the contract says it."""
    if act.kind == "validate":
        return _validation(act)
    message: Any = REQUESTS[act.kind]()
    for name, value in act.args.items():
        match name:
            case "customer" if value is not None:
                setattr(message.customer, *value)
            case "customer":
                pass
            case "terms" | "changes":
                _set_all(message, value, masked=act.kind.startswith("update"))
            case "max_uses" if act.kind == "create" and value is not None:
                message.overrides.max_uses = value
            case "max_uses" if act.kind == "create":
                pass
            case _:
                _set(message, name, value)
    if act.kind in {"update_tier", "update_customer"}:
        message.update_mask.paths.extend(sorted(set(act.args) - {"tier_id", "customer_id", "request_id"}))
    if act.kind in {"create_product", "create_tier", "create_policy"}:
        message.display_name = "Name"
    if act.kind == "create_policy":
        message.max_machines, message.require_fingerprint = MAX_MACHINES, False
    return message


def _set_all(message: Any, values: Any, *, masked: bool) -> None:
    """Terms and changes of a license; with a mask also those that are set to nothing."""
    if isinstance(values, model.Terms):
        general = model.Terms()
        names = (term.name for term in fields(values))
        values = {name: getattr(values, name) for name in names if getattr(values, name) != getattr(general, name)}
    for name, value in values.items():
        if isinstance(message, licenses.UpdateLicenseRequest) and name == "max_uses":
            message.update_mask.paths.append("overrides")
            if value is not None:
                message.overrides.max_uses = value
            continue
        if masked:
            message.update_mask.paths.append(name)
        _set(message, name, value)


def _set(message: Any, name: str, value: Any) -> None:
    field_ = message.DESCRIPTOR.fields_by_name[name]
    if value is None:
        return
    if isinstance(value, datetime):
        getattr(message, name).FromDatetime(value)
    elif isinstance(value, timedelta):
        getattr(message, name).FromTimedelta(value)
    elif field_.is_repeated:
        getattr(message, name).extend(field_.enum_type.values_by_name[word].number for word in sorted(value))
    elif field_.enum_type is not None:
        setattr(message, name, field_.enum_type.values_by_name[value].number)
    else:
        setattr(message, name, value)


def _validation(act: Act) -> validation.ValidateLicenseRequest:
    asked: model.Asked = act["asked"]
    selector = LicenseSelector(license_key=act["key"]) if act["key"] else LicenseSelector(license_id=act["license_id"])
    message = validation.ValidateLicenseRequest(
        license=selector,
        product=asked.product,
        policy_id=asked.policy_id,
        required_tier=asked.required_tier,
    )
    match act["how"]:
        case "leased":
            pass
        case "token":
            message.consistency.at_least_as_fresh.revision_token.token = act["token"]
        case _:  # the record tells the very time at which it decided
            message.consistency.fully_consistent.SetInParent()
    if asked.user is not None:
        message.user.CopyFrom(validation.UserScope(**{asked.user[0]: asked.user[1]}))  # pyright: ignore[reportArgumentType]
    if asked.entitlements is not None:
        message.required_entitlements.SetInParent()
        message.required_entitlements.feature_keys.extend(asked.entitlements)
    return message


def stamp(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else at(moment)


def license_message(state: model.State, license_id: str, now: datetime) -> licenses.License:
    """The license as every answer must show it; when it was last validated is told to within seconds, and left out."""
    found = state.licenses[license_id]
    policy = state.policies[found.policy_id]
    end = model.end_of(found, policy.terms) if policy.terms.grace_period else None
    own = found.own_max_uses
    return licenses.License(
        license_id=license_id,
        external_id=found.external_id,
        product_id=found.product_id,
        policy_id=found.policy_id,
        customer_id=found.customer_id,
        display_name=found.display_name,
        status=licenses.LicenseStatus.Status.Value(model.status_of(found, policy.terms, now)),
        key_hint=found.key_hint,
        start_time=stamp(found.starts_at),
        expire_time=stamp(found.expires_at),
        status_reason=found.status_reason,
        create_time=stamp(found.created_at),
        update_time=stamp(found.updated_at),
        etag=f"r{found.revision}",
        revision=found.revision,
        tier_id=found.tier_id,
        overrides=None if own is None else licenses.LicenseOverrides(max_uses=own),
        uses=found.uses,
        last_check_in_time=stamp(found.checked_in_at),
        check_in_due_time=stamp(model.check_in_due(found, policy)),
        grace_end_time=stamp(end),
        expiry_anchored=found.anchored,
        marks=[licenses.LicenseMark.Kind.Value(mark) for mark in model.marks_of(found, policy, now)],
    )


def assert_license(answered: licenses.License, state: model.State, now: datetime) -> None:
    shown = licenses.License()
    shown.CopyFrom(answered)
    shown.ClearField("last_validate_time")
    assert_equal(shown, license_message(state, answered.license_id, now))


def assert_equal(answered: Message, expected: Message) -> None:
    """Names what differs."""
    names = sorted({field_.name for message in (answered, expected) for field_, _ in message.ListFields()})
    both = ((name, getattr(answered, name), getattr(expected, name)) for name in names)
    assert answered == expected, [f"{name}: {one}, and not {other}" for name, one, other in both if one != other]


def instant(stamped: Timestamp) -> datetime:
    return stamped.ToDatetime(tzinfo=UTC)
