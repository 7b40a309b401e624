"""Revision tokens: which write, in which epoch of which database, under a MAC."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from shared.crypto.root_secret import Purpose, RootSecret

_FORMAT = 1
_MAC_BYTES = 16
_PAYLOAD_BYTES = 34


@dataclass(frozen=True, slots=True)
class Revision:
    """A state of the record: the one right after transaction `xid` of `epoch` of database cluster `system_id`."""

    system_id: int
    epoch: UUID
    xid: int


class RevisionTokens:
    """Makes the tokens that writes answer, and reads those that come back."""

    def __init__(self, root: RootSecret) -> None:
        self._version = root.current
        self._keys = {version: root.derive(Purpose.REVISION, version) for version in root.live_versions}

    def read(self, token: str) -> Revision:
        """The state that a token names. ValueError where it is none of ours: malformed, forged, or of a secret that is gone."""
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(payload) != _PAYLOAD_BYTES or payload[0] != _FORMAT or payload[1] not in self._keys:
            raise ValueError("no revision token")
        if not hmac.compare_digest(self._mac(payload), mac):
            raise ValueError("no revision token")
        return Revision(int.from_bytes(payload[2:10]), UUID(bytes=payload[10:26]), int.from_bytes(payload[26:34]))

    def make(self, revision: Revision) -> str:
        """URL-safe text of 67 characters."""
        payload = (
            bytes((_FORMAT, self._version))
            + revision.system_id.to_bytes(8)
            + revision.epoch.bytes
            + revision.xid.to_bytes(8)
        )
        return base64.urlsafe_b64encode(payload + self._mac(payload)).decode().rstrip("=")

    def _mac(self, payload: bytes) -> bytes:
        return hashlib.blake2b(payload, key=self._keys[payload[1]], digest_size=_MAC_BYTES).digest()
