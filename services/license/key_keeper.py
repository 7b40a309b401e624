"""How a license key is kept: as a hash always, and sealed where its product says so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from services.license import key_store, keys
from services.license.catalog_model import KeyStorage
from shared.crypto.hashing import SecretHasher
from shared.crypto.keyring import KekVersionError, Keyring, Wrapped
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

    async def is_current(self, tx: Transaction, license_id: str, key: str) -> bool:
        """Whether a key is one of the license's that works now."""
        return await key_store.works(tx, license_id, self._hasher.candidates(keys.canonical(key)))

    async def keep(self, tx: Transaction, license_id: str, key: str, storage: KeyStorage) -> None:
        """Stores a key that is not taken. KEY_STORAGE_UNAVAILABLE."""
        key_hash = self._hasher.hash(keys.canonical(key))
        sealed = None
        if storage is KeyStorage.SEALED:
            sealed = await self._required().wrap(key.encode(), key_store.place_of(tx, key_hash))
        await key_store.insert(tx, license_id, key_hash, sealed)

    async def owners(self, tx: Transaction, given: Sequence[str]) -> dict[str, str | None]:
        """Of keys in canonical form, those that a license has, or had: the license, None where it is gone."""
        hashes = await asyncio.to_thread(
            lambda: {key_hash: key for key in given for key_hash in self._hasher.candidates(key)}
        )
        found = await key_store.find_many(tx, list(hashes))
        return {hashes[key_hash]: license_id for key_hash, license_id in found.items()}

    async def keep_many(self, tx: Transaction, issued: Sequence[tuple[str, str, KeyStorage]]) -> None:
        """As `keep`, for many: each a license, its key, and how that is stored. KEY_STORAGE_UNAVAILABLE."""
        hashes = await asyncio.to_thread(lambda: [self._hasher.hash(keys.canonical(key)) for _, key, _ in issued])
        to_seal = [
            (key_hash, key.encode())
            for key_hash, (_, key, storage) in zip(hashes, issued, strict=True)
            if storage is KeyStorage.SEALED
        ]
        sealed: dict[bytes, Wrapped] = {}
        if to_seal:
            places = [(key, key_store.place_of(tx, key_hash)) for key_hash, key in to_seal]
            wrapped = await self._required().wrap_many(places)
            sealed = {key_hash: found for (key_hash, _), found in zip(to_seal, wrapped, strict=True)}
        rows = [
            (license_id, key_hash, sealed.get(key_hash))
            for (license_id, _, _), key_hash in zip(issued, hashes, strict=True)
        ]
        await key_store.insert_many(tx, rows)

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
