"""What lies in Redis: a body under a MAC that ties it to its key, its format and an epoch. Names and bytes, no I/O.

Redis is nobody to be trusted: whoever can write there can put back an older entry of the same root, and no more. That one
is for whoever admits the body to refuse, by the stamp in it.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared.crypto.root_secret import Purpose, RootSecret

MAX_BODY_BYTES: Final = 64 * 1024
"""A decision's facts are a few KiB."""
PREFIX: Final = b"lictor:facts:"
"""Of every key, so that an ACL can name them."""
HINT_PREFIX: Final = b"lictor:hint:"

_FORMAT: Final = b"\x01"
_EPOCH_END: Final = len(_FORMAT) + 16
_MAC_BYTES: Final = 16
BODY_AT: Final = _EPOCH_END + _MAC_BYTES
"""Where the body of an entry begins: before it stand its format, an epoch and a MAC."""
MAX_ENTRY_BYTES: Final = BODY_AT + MAX_BODY_BYTES


class Refusal(StrEnum):
    """Why an entry is not used."""

    OVERSIZE = "oversize"
    MALFORMED = "malformed"
    """Too short, or of a format that this version does not know."""
    FORGED = "forged"
    """The MAC is not that of this key, format, epoch and body: written by somebody else, or moved from another key."""
    OTHER_EPOCH = "other_epoch"


class Sealer:
    """Names, seals and opens entries under the newest version of the root secret.

    While two versions are live, what was sealed under the older one has another name: a miss, which the next load mends.
    """

    def __init__(self, root: RootSecret) -> None:
        self._key = root.derive(Purpose.L2_MAC)

    def name(self, root: str) -> bytes:
        """The key of a decision root, all of the same length. It tells nothing of the root."""
        return PREFIX + self._keyed(b"lictor/1|name", root.encode()).hex().encode()

    def hint_channel(self) -> bytes:
        """The channel of wake-up hints: those of other deployments on the same Redis have others."""
        return HINT_PREFIX + self._keyed(b"lictor/1|hint", b"").hex().encode()

    def seal(self, name: bytes, epoch: UUID, body: bytes) -> bytes:
        """The entry to store under `name`."""
        head = _FORMAT + epoch.bytes
        return head + self._mac(name, head, body) + body

    def open(self, name: bytes, epoch: UUID, entry: bytes) -> bytes | Refusal:
        """The body of the entry found under `name`, or why it must not be looked at."""
        if len(entry) > MAX_ENTRY_BYTES:
            return Refusal.OVERSIZE
        if len(entry) < BODY_AT or entry[:1] != _FORMAT:
            return Refusal.MALFORMED
        head, mac, body = entry[:_EPOCH_END], entry[_EPOCH_END:BODY_AT], entry[BODY_AT:]
        if not hmac.compare_digest(mac, self._mac(name, head, body)):
            return Refusal.FORGED
        if head[1:] != epoch.bytes:
            return Refusal.OTHER_EPOCH
        return body

    def _mac(self, name: bytes, head: bytes, body: bytes) -> bytes:
        # Names and heads have one length each, so no two triples give the same bytes.
        return self._keyed(b"lictor/1|entry", name + head + body)

    def _keyed(self, person: bytes, message: bytes) -> bytes:
        return hashlib.blake2b(message, key=self._key, person=person, digest_size=_MAC_BYTES).digest()
