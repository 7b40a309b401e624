"""An operator stops an account, or lets it work again."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.license import account_store
from services.license.account_model import Account, AccountAction, next_account_status
from services.license.events import event_data
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import Reason, not_found
from shared.tenancy import Mode, Tenant

_EVENTS: Final = {AccountAction.SUSPEND: "account.suspended", AccountAction.REINSTATE: "account.reinstated"}


async def change_account_status(
    tx: Transaction, action: AccountAction, *, actor: str, account_id: str, reason: str
) -> Account:
    """ACCOUNT_NOT_FOUND, STATE_TRANSITION_INVALID."""
    found = await account_store.lock_account(tx, account_id)
    if found is None:
        raise not_found(Reason.ACCOUNT_NOT_FOUND, account_id)
    status = next_account_status(found.status, action)
    changed = replace(found, status=status, revision=found.revision + 1, updated_at=tx.now)
    await account_store.update_account_status(tx, changed)
    inside = await tx.enter(Tenant(account_id, Mode.LIVE))
    await emit(inside, Event(_EVENTS[action], account_id, event_data(changed), actor, reason))
    return changed
