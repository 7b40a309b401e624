"""Files that hold secrets: who may read them, and lines `<version> <hex>` of secrets that are renewed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

SECRET_BYTES: Final = 32
MAX_VERSION: Final = 255
LIVE_VERSIONS: Final = 2


class SecretFileError(Exception):
    """The file cannot be used; the message says what to do about it, and shows nothing of what is in it."""


def open_to_others(mode: int) -> bool:
    """Whether a file of this `st_mode` is open to others than its owner, and its group to read.

    The group may read: that is how a mounted secret reaches a process that does not own it.
    """
    return bool(mode & (stat.S_IRWXO | stat.S_IWGRP))


def generate_line(version: int = 1) -> str:
    """A line of a new file: the version and 32 random bytes in hex."""
    return f"{version} {os.urandom(SECRET_BYTES).hex()}\n"


def read_versions(path: Path, what: str, *, longer: bool) -> tuple[tuple[int, bytes], ...]:
    """One or two lines `<version 1..255> <hex of 32 bytes>`, newest version first.

    Args:
        path: The file.
        what: How messages call it.
        longer: Whether a secret may have more than 32 bytes.

    Raises:
        SecretFileError: It is missing, malformed, or open to others than its owner and group.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except OSError as error:
        raise SecretFileError(f"{what} file {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        # Without its cause, which carries the file's bytes.
        raise SecretFileError(f"{what} file {path} is not text: expected lines of `<version> <hex>`") from None
    if open_to_others(mode):
        raise SecretFileError(f"{what} file {path} is open to others: chmod 600 it")
    versions: dict[int, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            version_text, secret_text = line.split()
            version, secret = int(version_text), bytes.fromhex(secret_text)
        except ValueError:
            raise SecretFileError(f"{what} file {path}, line {number}: expected `<version> <hex>`") from None
        fits = len(secret) >= SECRET_BYTES if longer else len(secret) == SECRET_BYTES
        if not 1 <= version <= MAX_VERSION or not fits or version in versions:
            raise SecretFileError(
                f"{what} file {path}, line {number}: needs a new version from 1 to {MAX_VERSION} "
                f"and {'at least' if longer else 'exactly'} {SECRET_BYTES} bytes"
            )
        versions[version] = secret
    if not 1 <= len(versions) <= LIVE_VERSIONS:
        raise SecretFileError(f"{what} file {path}: needs one or two versions, has {len(versions)}")
    return tuple(sorted(versions.items(), reverse=True))
