"""The private halves of signing keys: made, sealed, opened and used here, and nowhere else.

A product's first key is made in the transaction of the first use that needs one, and not with the product: that serves the
products that are there already as well, those made before there was a KEK, and leaves no private key lying about where
nothing is ever signed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.license import signing_key_store as store
from services.license.events import event_data
from services.license.signing_key_model import (
    KeyAction,
    KeyAlgorithm,
    KeyPurpose,
    KeySet,
    KeyStatus,
    Living,
    SigningKey,
    change,
)
from shared.crypto.keyring import KekVersionError, Keyring
from shared.db.outbox import Event, emit
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason, not_found
from shared.ids import Prefix, random_id

_EVENTS: Final = {
    KeyAction.ACTIVATE: "signing_key.activated",
    KeyAction.RETIRE: "signing_key.retired",
    KeyAction.REVOKE: "signing_key.revoked",
}


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that may sign until the transaction ends: until then nobody retires or revokes it."""

    key: SigningKey
    key_set: KeySet
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made: for what, and from when it is to sign; `activates_at` None for at once."""

    product_id: str
    purpose: KeyPurpose
    activates_at: datetime | None


class Signers:
    """Makes signing keys and signs with them. `keyring` is None where the process has no KEK."""

    def __init__(self, keyring: Keyring | None) -> None:
        self._keyring = keyring

    async def lock_set(self, tx: Transaction, product_id: str) -> KeySet:
        """The product's key set, made where there is none, with its keys locked."""
        found = await store.lock_set(tx, product_id)
        if found is None:
            await store.make_set(tx, KeySet(product_id, random_id(Prefix.KEY_SET), 0, tx.now))
            found = await store.lock_set(tx, product_id)
        if found is None:
            raise not_found(Reason.PRODUCT_NOT_FOUND, product_id)
        return found

    async def make(self, tx: Transaction, wanted: NewKey, *, actor: str, reason: str = "") -> SigningKey:
        """A new key in a set that is locked. KEY_STORAGE_UNAVAILABLE where there is no KEK."""
        private = Ed25519PrivateKey.generate()
        x = base64.urlsafe_b64encode(private.public_key().public_bytes_raw()).rstrip(b"=").decode()
        made = SigningKey(
            random_id(Prefix.SIGNING_KEY), wanted.product_id, wanted.purpose, KeyAlgorithm.ED25519,
            KeyStatus.ACTIVE if wanted.activates_at is None else KeyStatus.PENDING,
            {"kty": "OKP", "crv": "Ed25519", "x": x}, wanted.activates_at or tx.now, None, None, 1, tx.now, tx.now,
        )  # fmt: skip
        place = store.place_of(tx, made.signing_key_id)
        await store.insert(tx, made, await self._required().wrap(private.private_bytes_raw(), place))
        await emit(tx, Event("signing_key.created", made.signing_key_id, event_data(made), actor, reason))
        if made.status is KeyStatus.ACTIVE:
            await _tell(tx, KeyAction.ACTIVATE, made, actor, reason)
        return made

    async def file_signer(self, tx: Transaction, product_id: str, *, actor: str) -> Signer:
        """The key that signs a product's files now, as it is after all that was due.

        KEY_STORAGE_UNAVAILABLE; TRANSACTION_CONFLICT where the keys were changed in this very moment.
        """
        purpose = KeyPurpose.FILE
        living = Living.of(await store.living(tx, product_id, purpose))
        if _settled(living, tx.now):
            # Shared, so that signing waits for nobody who signs; what is read after it is what holds.
            key_set = await store.hold_set(tx, product_id)
            living = Living.of(await store.living(tx, product_id, purpose))
            if key_set is None or not _settled(living, tx.now):
                raise DomainError(Reason.TRANSACTION_CONFLICT, "the product's signing keys have just been changed")
        else:
            key_set = await self.lock_set(tx, product_id)
            living = Living.of(await store.living(tx, product_id, purpose))
            living = await self._take_over(tx, product_id, living, actor)
        assert living.active is not None
        return Signer(living.active, key_set, await self._opened(tx, living.active))

    async def _take_over(self, tx: Transaction, product_id: str, living: Living, actor: str) -> Living:
        signer = living.signer(tx.now)
        if signer is None:
            return Living(await self.make(tx, NewKey(product_id, KeyPurpose.FILE, None), actor=actor), None)
        return await take_over(tx, living, actor=actor)

    async def _opened(self, tx: Transaction, key: SigningKey) -> Callable[[bytes], bytes]:
        sealed = await store.get_sealed(tx, key.signing_key_id)
        assert sealed is not None, "a key that signs has its private half"
        try:
            raw = await self._required().unwrap(sealed, store.place_of(tx, key.signing_key_id))
        except KekVersionError as error:
            raise _unavailable(
                f"the signing key is sealed under version {error.version} of the KEK, which is gone"
            ) from error
        return Ed25519PrivateKey.from_private_bytes(raw).sign

    def _required(self) -> Keyring:
        if self._keyring is None:
            raise _unavailable("this deployment has no KEK to seal signing keys under: set LICTOR_KEK_FILE")
        return self._keyring


async def take_over(tx: Transaction, living: Living, *, actor: str) -> Living:
    """Does what is due in a set that is locked: the key that waited signs, and the one before it retires."""
    if living.pending is None or living.signer(tx.now) is not living.pending:
        return living
    if living.active is not None:
        await apply(tx, living.active, KeyAction.RETIRE, actor)
    return Living(await apply(tx, living.pending, KeyAction.ACTIVATE, actor), None)


async def apply(tx: Transaction, key: SigningKey, action: KeyAction, actor: str, reason: str = "") -> SigningKey:
    """Stores what becomes of a key of a set that is locked, and tells of it. STATE_TRANSITION_INVALID."""
    changed = change(key, action, tx.now)
    if action is KeyAction.ACTIVATE:
        changed = replace(changed, activates_at=tx.now)
    await store.update(tx, changed)
    await _tell(tx, action, changed, actor, reason)
    return changed


async def _tell(tx: Transaction, action: KeyAction, key: SigningKey, actor: str, reason: str = "") -> None:
    await emit(tx, Event(_EVENTS[action], key.signing_key_id, event_data(key), actor, reason))


def _settled(living: Living, now: datetime) -> bool:
    """Whether the key that signs is the one that is active, so that nothing is to be changed."""
    return living.active is not None and living.signer(now) is living.active


def _unavailable(message: str) -> DomainError:
    return DomainError(Reason.KEY_STORAGE_UNAVAILABLE, message, metadata={"field": "signing_key"})
