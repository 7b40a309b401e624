"""The deployment's root secret: one file, from which every other symmetric key is derived."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.crypto.private_files import read_versions


class Purpose(StrEnum):
    """What a derived key is for. One purpose's key says nothing about another's."""

    KEY_PEPPER = "key-pepper"
    PAGE_TOKEN = "page-token"
    REVISION = "revision"
    L2_MAC = "l2-mac"
    RESUME = "resume"
    MACHINE_SECRET = "machine-secret"
    FINGERPRINT = "fingerprint"
    SERVICE_TOKEN = "service-token"


@dataclass(frozen=True, slots=True)
class RootSecret:
    """One or two live versions, newest first. New values use the newest; old ones verify while their version is live."""

    versions: tuple[tuple[int, bytes], ...] = field(repr=False)

    @property
    def current(self) -> int:
        return self.versions[0][0]

    def derive(self, purpose: Purpose, version: int | None = None, *, length_bytes: int = 32) -> bytes:
        """The key of `purpose` under a live version (the newest by default). KeyError when the version is not live."""
        wanted = self.current if version is None else version
        secret = dict(self.versions)[wanted]
        return HKDF(SHA256(), length_bytes, salt=None, info=f"lictor/1|{purpose}|{wanted}".encode()).derive(secret)

    @property
    def live_versions(self) -> tuple[int, ...]:
        return tuple(version for version, _ in self.versions)


def load(path: Path) -> RootSecret:
    """Reads a root secret file: one or two lines `<version 1..255> <hex of 32 bytes or more>`. Raises SecretFileError."""
    return RootSecret(read_versions(path, "root secret", longer=True))
