"""An operator gives an account another name, or other limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.license import account_store
from services.license.account_model import Account
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.etags import refuse_stale
from shared.tenancy import Mode, Tenant


async def update_account(
    tx: Transaction, *, actor: str, account_id: str, etag: str, changes: Mapping[str, Any]
) -> Account:
    """ACCOUNT_NOT_FOUND, ETAG_MISMATCH, EXTERNAL_ID_TAKEN."""
    found = await account_store.lock_account(tx, account_id)
    if found is None:
        raise not_found(Reason.ACCOUNT_NOT_FOUND, account_id)
    refuse_stale(etag, found.revision, account_id)
    changed = replace(found, **changes, revision=found.revision + 1, updated_at=tx.now)
    await account_store.update_account(tx, changed)
    inside = await tx.enter(Tenant(account_id, Mode.LIVE))
    await emit(inside, Event("account.updated", account_id, event_data(changed), actor))
    return changed
