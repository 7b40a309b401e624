"""Hashes of fingerprints as the record keeps them: a version byte and HMAC-SHA-256 under that version's key.

What is hashed is the fingerprint in its place: account, mode, the component's name and its value. So the same machine has
other hashes in each account and in each of its two worlds, and a value under one name is never found under another.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from shared.crypto.root_secret import Purpose, RootSecret
from shared.tenancy import Tenant

PLAIN: Final = ""
"""The component's name of a plain fingerprint; none of a set can have it."""
WORKLOAD: Final = "SPIFFE"
"""The same of the SPIFFE ID of a workload: what a caller presents as a fingerprint is never taken for a certificate."""


def _placed(tenant: Tenant, component: str, value: str) -> bytes:
    """The four parts, each after its length, so that no other four parts give the same bytes."""
    parts = (tenant.account_id.encode(), tenant.mode.value.encode(), component.encode(), value.encode())
    return b"".join(len(part).to_bytes(4) + part for part in parts)


class FingerprintHasher:
    """Hashes fingerprints. The key is not in the database, so a stolen table can't be guessed against."""

    def __init__(self, root: RootSecret) -> None:
        self._keys = tuple((v, root.derive(Purpose.FINGERPRINT, v)) for v in root.live_versions)

    def hash(self, tenant: Tenant, value: str, component: str = PLAIN) -> bytes:
        """33 bytes under the newest version: what is stored."""
        version, key = self._keys[0]
        return bytes((version,)) + hmac.digest(key, _placed(tenant, component, value), hashlib.sha256)

    def candidates(self, tenant: Tenant, value: str, component: str = PLAIN) -> list[bytes]:
        """The hashes under every live version, newest first: what a look-up must try."""
        placed = _placed(tenant, component, value)
        return [bytes((v,)) + hmac.digest(key, placed, hashlib.sha256) for v, key in self._keys]

    def candidates_of(self, tenant: Tenant, components: Mapping[str, str]) -> dict[str, list[bytes]]:
        """The same for each component of a set, by its name: what `shared.rules.fingerprints.match` takes."""
        return {name: self.candidates(tenant, value, name) for name, value in components.items()}
