"""A secret or publishable key of the caller's account and mode."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from services.license import account_store
from services.license.account_model import ApiKey, KeyKind
from services.license.events import event_data
from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.crypto.hashing import SecretHasher
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason
from shared.ids import Prefix, new_id
from shared.tenancy import Mode, Principal


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a new key is to be."""

    display_name: str
    external_id: str | None
    scopes: tuple[str, ...]
    expires_at: datetime | None
    kind: KeyKind = KeyKind.SECRET


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """The key's record, and the key itself, shown this once."""

    api_key: ApiKey
    secret: str


def refuse_wider(principal: Principal, scopes: tuple[str, ...]) -> None:
    """CALLER_NOT_ALLOWED when a key would be handed to the caller that may do more than the caller."""
    missing = sorted(set(scopes) - principal.scopes)
    if missing:
        raise DomainError(
            Reason.CALLER_NOT_ALLOWED,
            f"the caller does not have {', '.join(missing)} and can't hand it on",
            metadata={"scope": missing[0]},
        )


async def create_api_key(tx: Transaction, hasher: SecretHasher, *, actor: str, wanted: NewKey) -> CreatedKey:
    """EXTERNAL_ID_TAKEN when another key of the account and mode has the external id."""
    secret = api_keys.generate(_prefix(wanted.kind, tx.tenant.mode))
    key = ApiKey(
        new_id(Prefix.API_KEY), wanted.external_id, wanted.display_name, wanted.scopes, secret[-api_keys.HINT_CHARS :],
        wanted.expires_at, None, None, 1, tx.now, tx.now, wanted.kind,
    )  # fmt: skip
    await account_store.insert_key(tx, key, hasher.hash(secret))
    await emit(tx, Event("api_key.created", key.api_key_id, event_data(key), actor))
    return CreatedKey(key, secret)


def _prefix(kind: KeyKind, mode: Mode) -> KeyPrefix:
    match kind:
        case KeyKind.SECRET:
            return api_keys.secret_prefix(mode)
        case KeyKind.PUBLISHABLE:
            return api_keys.publishable_prefix(mode)
        case _ as never:
            assert_never(never)
