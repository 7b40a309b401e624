"""Hashes of secrets as the record keeps them: a version byte and HMAC-SHA-256 under the pepper of that version."""

from __future__ import annotations

import hashlib
import hmac

from shared.crypto.root_secret import Purpose, RootSecret


class SecretHasher:
    """Hashes license keys and API keys. The pepper is not in the database, so a stolen table can't be guessed against."""

    def __init__(self, root: RootSecret) -> None:
        self._peppers = tuple((v, root.derive(Purpose.KEY_PEPPER, v)) for v in root.live_versions)

    def hash(self, secret: str) -> bytes:
        """33 bytes under the newest version."""
        version, pepper = self._peppers[0]
        return bytes((version,)) + hmac.digest(pepper, secret.encode(), hashlib.sha256)

    def candidates(self, secret: str) -> list[bytes]:
        """The hashes under every live version, newest first: what a look-up must try."""
        text = secret.encode()
        return [bytes((v,)) + hmac.digest(pepper, text, hashlib.sha256) for v, pepper in self._peppers]
