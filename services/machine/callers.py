"""Who may do what to which machine, and see what of it: callers whose credential is in its user's hands."""

from __future__ import annotations

from typing import Final

from lictor.machine.v1 import machine_pb2 as pb

from services.machine import store, terms_store
from services.machine.model import Machine
from services.machine.secrets import MachineSecrets
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.rpc.auth import NARROW_KINDS, not_for
from shared.tenancy import Principal, PrincipalKind

HIDDEN: Final = ("external_id", "ip", "labels", "metadata")
"""Fields that are the vendor's own."""


async def refuse_unproven(
    tx: Transaction, secrets: MachineSecrets, principal: Principal, machine_id: str, secret: str
) -> None:
    """MACHINE_NOT_FOUND for a machine of another license than the caller's; CALLER_NOT_ALLOWED where a publishable key does not
    prove to be the machine."""
    refuse_unproven_secret(secrets, principal, machine_id, secret)
    if principal.kind is PrincipalKind.LICENSE_KEY:
        machine = await store.get_machine(tx, machine_id)
        if machine is None or machine.license_id != principal.license_id:
            raise not_found(Reason.MACHINE_NOT_FOUND, machine_id)


def refuse_unproven_secret(secrets: MachineSecrets, principal: Principal, machine_id: str, secret: str) -> None:
    """CALLER_NOT_ALLOWED where a publishable key comes without the machine's secret. One that is given must be right, whoever
    gives it."""
    if secret and not secrets.is_of(secret, principal.tenant, machine_id):
        raise _unproven(principal)
    if principal.kind is PrincipalKind.PUBLISHABLE_KEY and not secret:
        raise _unproven(principal)


def own_license(principal: Principal) -> str | None:
    """The license that a caller's machines must be of; None for any of the account."""
    return principal.license_id if principal.kind is PrincipalKind.LICENSE_KEY else None


async def refuse_others(tx: Transaction, principal: Principal, machine: Machine | None, machine_id: str) -> Machine:
    """MACHINE_NOT_FOUND for one that there is not, and to a customer for one of a license that another holds."""
    if machine is None:
        raise not_found(Reason.MACHINE_NOT_FOUND, machine_id)
    if principal.kind is PrincipalKind.CUSTOMER_SESSION:
        terms = await terms_store.terms_of(tx, machine.license_id)
        if terms is None or terms.customer_id != principal.customer_id:
            raise not_found(Reason.MACHINE_NOT_FOUND, machine_id)
    return machine


def shown(principal: Principal, message: pb.Machine) -> pb.Machine:
    """The machine as the caller may see it."""
    if principal.kind in NARROW_KINDS:
        for field in HIDDEN:
            message.ClearField(field)
    return message


def _unproven(principal: Principal) -> Exception:
    return not_for(principal, "the machine's own `machine_secret` is needed, as its activation answered it")
