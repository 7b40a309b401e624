"""An operator lets callers with certificates into an account."""

from __future__ import annotations

from dataclasses import dataclass

from services.license import account_store, workload_store
from services.license.events import event_data
from services.license.workload_model import WorkloadBinding
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.ids import Prefix, new_id
from shared.rules.spiffe import SpiffeIdPattern
from shared.tenancy import Tenant


@dataclass(frozen=True, slots=True)
class NewWorkloadBinding:
    """What a new binding is to be."""

    display_name: str
    external_id: str | None
    spiffe_id_pattern: SpiffeIdPattern
    tenant: Tenant
    scopes: tuple[str, ...]


async def create_workload_binding(tx: Transaction, *, actor: str, wanted: NewWorkloadBinding) -> WorkloadBinding:
    """ACCOUNT_NOT_FOUND, SPIFFE_ID_PATTERN_TAKEN, EXTERNAL_ID_TAKEN."""
    if await account_store.get_account(tx, wanted.tenant.account_id) is None:
        raise not_found(Reason.ACCOUNT_NOT_FOUND, wanted.tenant.account_id)
    binding = WorkloadBinding(
        new_id(Prefix.WORKLOAD_BINDING), wanted.tenant.account_id, wanted.tenant.mode, wanted.external_id,
        wanted.display_name, wanted.spiffe_id_pattern, wanted.scopes, 1, tx.now, tx.now,
    )  # fmt: skip
    inside = await tx.enter(wanted.tenant)
    await workload_store.insert(inside, binding)
    await emit(inside, Event("workload_binding.created", binding.workload_binding_id, event_data(binding), actor))
    return binding
