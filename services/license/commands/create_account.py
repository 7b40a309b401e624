"""An operator makes an account, with one all-scopes key per mode."""

from __future__ import annotations

from dataclasses import dataclass

from services.license import account_store
from services.license.account_model import Account, AccountStatus
from services.license.commands.create_api_key import NewKey, create_api_key
from services.license.events import event_data
from shared.crypto.hashing import SecretHasher
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.ids import Prefix, new_id
from shared.tenancy import ACCOUNT_SCOPES, Mode, Tenant


@dataclass(frozen=True, slots=True)
class CreatedAccount:
    """The account and its first keys, shown this once."""

    account: Account
    test_api_key: str
    live_api_key: str


async def create_account(
    tx: Transaction, hasher: SecretHasher, *, actor: str, display_name: str, external_id: str | None
) -> CreatedAccount:
    """EXTERNAL_ID_TAKEN when another account has the external id."""
    account_id = new_id(Prefix.ACCOUNT)
    account = Account(account_id, external_id, display_name, AccountStatus.ACTIVE, 1, tx.now, tx.now)
    await account_store.insert_account(tx, account)
    secrets: dict[Mode, str] = {}
    for mode in (Mode.TEST, Mode.LIVE):
        inside = await tx.enter(Tenant(account_id, mode))
        first = NewKey(f"first {mode.value.lower()} key", None, tuple(sorted(ACCOUNT_SCOPES)), None)
        secrets[mode] = (await create_api_key(inside, hasher, actor=actor, wanted=first)).secret
    inside = await tx.enter(Tenant(account_id, Mode.LIVE))
    await emit(inside, Event("account.created", account_id, event_data(account), actor))
    return CreatedAccount(account, secrets[Mode.TEST], secrets[Mode.LIVE])
