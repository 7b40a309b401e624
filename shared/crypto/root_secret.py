"""The deployment's root secret: one file, from which every other symmetric key is derived."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.crypto.private_files import open_to_others

MIN_SECRET_BYTES = 32
MAX_VERSION = 255


class Purpose(StrEnum):
    """What a derived key is for. One purpose's key says nothing about another's."""

    KEY_PEPPER = "key-pepper"
    PAGE_TOKEN = "page-token"
    REVISION = "revision"


class RootSecretError(Exception):
    """The file cannot be used; the message says what to do about it."""


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


def generate_line(version: int = 1) -> str:
    """A line of a new root secret file: the version and 32 random bytes in hex."""
    return f"{version} {os.urandom(MIN_SECRET_BYTES).hex()}\n"


def load(path: Path) -> RootSecret:
    """Reads a root secret file: one or two lines `<version 1..255> <hex of 32 bytes or more>`.

    Raises RootSecretError when it is missing, malformed, or open to others than its owner and group.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except OSError as error:
        raise RootSecretError(f"root secret file {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        # Without its cause, which carries the file's bytes.
        raise RootSecretError(f"root secret file {path} is not text: expected lines of `<version> <hex>`") from None
    if open_to_others(mode):
        raise RootSecretError(f"root secret file {path} is open to others: chmod 600 it")
    versions: dict[int, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            version_text, secret_text = line.split()
            version, secret = int(version_text), bytes.fromhex(secret_text)
        except ValueError:
            raise RootSecretError(f"root secret file {path}, line {number}: expected `<version> <hex>`") from None
        if not 1 <= version <= MAX_VERSION or len(secret) < MIN_SECRET_BYTES or version in versions:
            raise RootSecretError(
                f"root secret file {path}, line {number}: needs a new version from 1 to {MAX_VERSION} "
                f"and at least {MIN_SECRET_BYTES} bytes"
            )
        versions[version] = secret
    if not 1 <= len(versions) <= 2:
        raise RootSecretError(f"root secret file {path}: needs one or two versions, has {len(versions)}")
    return RootSecret(tuple(sorted(versions.items(), reverse=True)))
