"""How a license key is kept: as a hash always, and sealed where its product says so."""

from __future__ import annotations

from datetime import datetime

from services.license import key_store, keys
from services.license.catalog_model import KeyStorage
from shared.crypto.hashing import SecretHasher
from shared.crypto.keyring import KekVersionError, Keyring
from shared.db.pool import Transaction
from shared.errors import DomainError, Reason


class KeyKeeper:
    """Stores license keys and shows the sealed ones. `keyring` is None where the process has no KEK."""

    def __init__(self, hasher: SecretHasher, keyring: Keyring | None) -> None:
        self._hasher = hasher
        self._keyring = keyring

    def refuse_unless_possible(self, storage: KeyStorage) -> None:
        """KEY_STORAGE_UNAVAILABLE where keys are to be sealed and there is no KEK."""
        if storage is KeyStorage.SEALED:
            self._required()

    async def refuse_taken(self, tx: Transaction, key: str) -> None:
        """KEY_TAKEN where a license has, or had, the key."""
        if await key_store.is_known(tx, self._hasher.candidates(keys.canonical(key))):
            raise DomainError(Reason.KEY_TAKEN, "a license has, or had, this key", metadata={"field": "key"})

    async def keep(self, tx: Transaction, license_id: str, key: str, storage: KeyStorage) -> None:
        """Stores a key that is not taken. KEY_STORAGE_UNAVAILABLE."""
        key_hash = self._hasher.hash(keys.canonical(key))
        sealed = None
        if storage is KeyStorage.SEALED:
            sealed = await self._required().wrap(key.encode(), key_store.place_of(tx, key_hash))
        await key_store.insert(tx, license_id, key_hash, sealed)

    async def replace(
        self, tx: Transaction, license_id: str, key: str, storage: KeyStorage, old_keys_end_at: datetime
    ) -> None:
        """The same for a license that has a key: that one, and those before it, end. KEY_STORAGE_UNAVAILABLE."""
        await key_store.end(tx, license_id, old_keys_end_at)
        await self.keep(tx, license_id, key, storage)

    async def reveal(self, tx: Transaction, license_id: str) -> str:
        """A license's key. KEY_NOT_STORED where only its hash is, KEY_STORAGE_UNAVAILABLE where its KEK is not here.

        Raises UnwrapError when the row was changed from outside.
        """
        found = await key_store.get_sealed(tx, license_id)
        if found is None:
            raise DomainError(
                Reason.KEY_NOT_STORED, "only a hash of this license's key is stored", metadata={"id": license_id}
            )
        place, sealed = found
        try:
            return (await self._required().unwrap(sealed, place)).decode()
        except KekVersionError as error:
            raise _unavailable(f"the key is sealed under version {error.version} of the KEK, which is gone") from error

    def _required(self) -> Keyring:
        if self._keyring is None:
            raise _unavailable("this deployment has no KEK to seal keys under: set LICTOR_KEK_FILE, or take HASH_ONLY")
        return self._keyring


def _unavailable(message: str) -> DomainError:
    return DomainError(Reason.KEY_STORAGE_UNAVAILABLE, message, metadata={"field": "key_storage"})
