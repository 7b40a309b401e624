"""What customers may ask, and see, with a session: themselves and their own licenses."""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import Message
from lictor.license.v1.customer_service_pb2 import Customer
from lictor.license.v1.license_service_pb2 import License, RotateLicenseKeyRequest

from services.license import catalog_store, customer_session_store, customer_store, store
from services.license.customer_model import CustomerStatus
from services.license.model import License as LicenseModel
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.facts.credentials import invalid
from shared.rpc.auth import NARROW_KINDS, not_for
from shared.tenancy import Principal, PrincipalKind

SHOWN_TO_CUSTOMERS: Final[dict[type[Message], tuple[str, ...]]] = {
    Customer: (
        "customer_id", "email", "subject_ref", "display_name", "banned", "create_time", "update_time", "etag", "revision",
    ),
    License: (
        "license_id", "product_id", "policy_id", "tier_id", "customer_id", "display_name", "status", "key_hint",
        "start_time", "expire_time", "expiry_anchored", "grace_end_time", "uses", "last_check_in_time", "check_in_due_time",
        "create_time", "update_time", "etag", "revision",
    ),
}  # fmt: skip
"""A field that is not here is the vendor's own. What is added to a message stays there until it is named."""

M = TypeVar("M", Customer, License)


def is_customer(principal: Principal) -> bool:
    return principal.kind is PrincipalKind.CUSTOMER_SESSION


def shown(principal: Principal, message: M) -> M:
    """The message as the caller may see it: to a customer, or a shipped application, nothing of the vendor's own."""
    if principal.kind not in NARROW_KINDS:
        return message
    narrowed = type(message)()
    for field in SHOWN_TO_CUSTOMERS[type(message)]:
        if message.DESCRIPTOR.fields_by_name[field].message_type is None:
            setattr(narrowed, field, getattr(message, field))
        elif message.HasField(field):  # pyright: ignore[reportArgumentType] - a name out of the table above
            getattr(narrowed, field).CopyFrom(getattr(message, field))
    return narrowed


def held_by(principal: Principal, license_: LicenseModel | None) -> LicenseModel | None:
    """The license, or None where a customer asks and another one holds it, as if it were not there."""
    if license_ is None or (is_customer(principal) and license_.customer_id != principal.customer_id):
        return None
    return license_


async def refuse_ended(tx: Transaction, principal: Principal) -> None:
    """CREDENTIALS_INVALID where a customer's session has ended since the call began.

    The customer is held: a ban, or an end of its sessions, waits until this transaction is over. So nothing that a
    session does is committed after either has returned.
    """
    if not is_customer(principal):
        return
    customer = await customer_store.find(tx, customer_store.HOLD, principal.customer_id)
    if customer is None or customer.status is CustomerStatus.BANNED:
        raise invalid()
    if not await customer_session_store.is_live(tx, principal.key_id):
        raise invalid()


async def refuse_others_license(tx: Transaction, principal: Principal, license_id: str) -> None:
    """LICENSE_NOT_FOUND where a customer is about to change a license that it does not hold; CREDENTIALS_INVALID."""
    await refuse_ended(tx, principal)
    if is_customer(principal) and held_by(principal, await store.lock_license(tx, license_id)) is None:
        raise not_found(Reason.LICENSE_NOT_FOUND, license_id)


async def refuse_rotation(tx: Transaction, principal: Principal, request: RotateLicenseKeyRequest) -> None:
    """What a customer may not do when it asks for another key. LICENSE_NOT_FOUND, CALLER_NOT_ALLOWED."""
    if not is_customer(principal):
        return
    await refuse_others_license(tx, principal, request.license_id)
    if request.key:
        raise not_for(principal, "a customer session gets a generated key: leave `key` out")
    found = await store.get_license(tx, request.license_id)
    policy = None if found is None else await catalog_store.get_policy(tx, found.policy_id)
    if policy is None or policy.terms.protected:
        raise not_for(principal, "the license's policy is protected: the vendor alone gives it another key")
