"""What a request says that a new license is to be: the same fields wherever one is asked for."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from lictor.license.v1 import license_service_pb2 as pb

from services.license.commands.create_license import NewLicense
from services.license.commands.find_customer import CustomerName, NamedBy
from services.license.terms import Overrides
from shared.rpc.fields import to_datetime, to_timedelta

_NUMBERS: Final[tuple[Any, ...]] = tuple(field.name for field in fields(Overrides) if field.name != "offline_max_ttl")
"""The limits that are numbers, by the names that the contract and the model share."""


def new_license(request: pb.CreateLicenseRequest | pb.LicenseImport, product_id: str = "") -> NewLicense:
    """From a request, or an item of one, whose fields are good."""
    return NewLicense(
        policy_id=request.policy_id,
        product_id=product_id,
        tier_id=request.tier_id,
        customer=customer_name(request.customer) if request.HasField("customer") else None,
        key=request.key or None,
        external_id=request.external_id or None,
        display_name=request.display_name,
        starts_at=to_datetime(request, "start_time"),
        expires_at=to_datetime(request, "expire_time"),
        overrides=overrides_of(request.overrides),
        labels=dict(request.labels),
        metadata=MessageToDict(request.metadata),
    )


def overrides_of(given: pb.LicenseOverrides) -> Overrides:
    numbers = {name: getattr(given, name) for name in _NUMBERS if given.HasField(name)}
    return Overrides(**numbers, offline_max_ttl=to_timedelta(given, "offline_max_ttl"))


def customer_name(ref: pb.CustomerRef) -> CustomerName:
    match ref.WhichOneof("ref"):
        case "customer_id":
            return CustomerName(NamedBy.ID, ref.customer_id, ref.display_name)
        case "email":
            return CustomerName(NamedBy.EMAIL, ref.email.lower(), ref.display_name)
        case _:
            return CustomerName(NamedBy.SUBJECT_REF, ref.subject_ref, ref.display_name)
