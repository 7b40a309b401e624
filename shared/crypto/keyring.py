"""Wrapping of what must be read again: AES-256-GCM under a key-encryption key (KEK), bound to the place of the row."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.crypto.private_files import read_versions
from shared.tenancy import Tenant

_NONCE_BYTES: Final = 12
_SEPARATOR: Final = "|"


class UnwrapError(Exception):
    """What was wrapped is not what is stored in this place, or was wrapped under another key of the same version."""


class KekVersionError(UnwrapError):
    """The KEK of `version` is not in the file any more."""

    def __init__(self, version: int) -> None:
        super().__init__(f"wrapped under version {version} of the KEK, which is not in the file")
        self.version = version


@dataclass(frozen=True, slots=True)
class Place:
    """Where wrapped bytes are stored. They unwrap there and nowhere else, so a row that is moved or copied is refused."""

    column: str
    """`schema.table.column`."""
    tenant: Tenant
    row_id: str

    def __post_init__(self) -> None:
        if any(_SEPARATOR in part or not part for part in (self.column, self.tenant.account_id, self.row_id)):
            raise ValueError(f"a place has three names, none of them with {_SEPARATOR!r}")

    def bound_to(self, kek_version: int) -> bytes:
        """The additional authenticated data."""
        parts = ("lictor/1", self.column, self.tenant.account_id, self.tenant.mode.value, self.row_id, str(kek_version))
        return _SEPARATOR.join(parts).encode()


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What is stored. `ciphertext` ends with the tag of 16 bytes."""

    kek_version: int
    nonce: bytes
    ciphertext: bytes


class Keyring(Protocol):
    """Wraps and unwraps. Async, so that a key management service can serve it as well as a file."""

    async def wrap(self, plain: bytes, place: Place) -> Wrapped:
        """Wraps under the newest version."""
        ...

    async def wrap_many(self, many: Sequence[tuple[bytes, Place]]) -> list[Wrapped]:
        """The same for many, in their order, without holding up the loop."""
        ...

    async def unwrap(self, wrapped: Wrapped, place: Place) -> bytes:
        """What was wrapped. KekVersionError where its version is gone, UnwrapError where it does not belong here."""
        ...


@dataclass(frozen=True, slots=True)
class FileKeyring:
    """A keyring of one or two live versions, newest first, that were read from a file."""

    versions: tuple[tuple[int, bytes], ...] = field(repr=False)

    @property
    def live_versions(self) -> tuple[int, ...]:
        return tuple(version for version, _ in self.versions)

    async def wrap(self, plain: bytes, place: Place) -> Wrapped:
        return self._wrap(plain, place)

    async def wrap_many(self, many: Sequence[tuple[bytes, Place]]) -> list[Wrapped]:
        return await asyncio.to_thread(lambda: [self._wrap(plain, place) for plain, place in many])

    def _wrap(self, plain: bytes, place: Place) -> Wrapped:
        version, kek = self.versions[0]
        nonce = os.urandom(_NONCE_BYTES)
        return Wrapped(version, nonce, AESGCM(kek).encrypt(nonce, plain, place.bound_to(version)))

    async def unwrap(self, wrapped: Wrapped, place: Place) -> bytes:
        kek = dict(self.versions).get(wrapped.kek_version)
        if kek is None:
            raise KekVersionError(wrapped.kek_version)
        try:
            return AESGCM(kek).decrypt(wrapped.nonce, wrapped.ciphertext, place.bound_to(wrapped.kek_version))
        except (InvalidTag, ValueError):
            raise UnwrapError(
                f"what is stored in {place.column} was wrapped elsewhere, changed, or wrapped under another KEK "
                f"of version {wrapped.kek_version}"
            ) from None


def load(path: Path) -> FileKeyring:
    """Reads a KEK file: one or two lines `<version 1..255> <hex of 32 bytes>`. Raises SecretFileError."""
    return FileKeyring(read_versions(path, "KEK", longer=False))
