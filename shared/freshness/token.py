"""Revision tokens: which write, in which epoch of which database, under a MAC."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from uuid import UUID

from shared.crypto.root_secret import Purpose, RootSecret

_FORMAT = 1
_MAC_BYTES = 16


@dataclass(frozen=True, slots=True)
class Revision:
    """A state of the record: the one right after transaction `xid` of `epoch` of database cluster `system_id`."""

    system_id: int
    epoch: UUID
    xid: int


class RevisionTokens:
    """Makes the tokens that writes answer."""

    def __init__(self, root: RootSecret) -> None:
        self._version = root.current
        self._key = root.derive(Purpose.REVISION)

    def make(self, revision: Revision) -> str:
        """URL-safe text of 67 characters."""
        payload = (
            bytes((_FORMAT, self._version))
            + revision.system_id.to_bytes(8)
            + revision.epoch.bytes
            + revision.xid.to_bytes(8)
        )
        mac = hashlib.blake2b(payload, key=self._key, digest_size=_MAC_BYTES).digest()
        return base64.urlsafe_b64encode(payload + mac).decode().rstrip("=")
