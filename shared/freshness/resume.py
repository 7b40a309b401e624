"""Resume tokens: up to which state of the record a stream has told all, under a MAC. A token grants nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared.crypto.root_secret import Purpose, RootSecret
from shared.errors import DomainError, Reason
from shared.freshness.snapshot import Snapshot, Stamp
from shared.tenancy import Tenant

MAX_SNAPSHOT_CHARS: Final = 1024
"""A snapshot with more transactions in progress is written as one that sees less, and so lets more be told again."""
MAX_CHARS: Final = 2048
"""More than any token has."""
_FORMAT: Final = 1
_MAC_BYTES: Final = 16
_HEAD: Final = struct.Struct(">BBQ16sQ8s")
"""Format, version of the secret, system id, epoch, microseconds, hash of the filters. The snapshot's text follows."""
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)


class Why(StrEnum):
    """Why a stream cannot go on."""

    EXPIRED = "EXPIRED"
    EPOCH = "EPOCH"
    FILTER = "FILTER"
    UNREADABLE = "UNREADABLE"


_WORDS: Final = {
    Why.EXPIRED: "is older than what the record keeps of its changes",
    Why.EPOCH: "is of another epoch of the record, which has restarted or was failed over since",
    Why.FILTER: "is of a stream with other filters, or of another account or mode",
    Why.UNREADABLE: "is damaged, or none that this deployment has made",
}


def resync(why: Why) -> DomainError:
    """RESYNC_REQUIRED: the caller begins anew."""
    return DomainError(
        Reason.RESYNC_REQUIRED, f"the resume_token {_WORDS[why]}; begin anew without one", metadata={"why": why.value}
    )


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A state of the record, and the record's time at which it was the latest."""

    stamp: Stamp
    at: datetime


class ResumeTokens:
    """Makes the tokens of streams, and reads those that come back."""

    def __init__(self, root: RootSecret) -> None:
        self._version = root.current
        self._keys = {version: root.derive(Purpose.RESUME, version) for version in root.live_versions}

    def make(self, tenant: Tenant, filters: str, point: ResumePoint) -> str:
        """URL-safe text. `filters` names the stream's filters, and the stream."""
        snapshot = point.stamp.snapshot
        text = str(snapshot)
        if len(text) > MAX_SNAPSHOT_CHARS:
            text = str(Snapshot(snapshot.xmin, snapshot.xmin, frozenset()))
        head = _HEAD.pack(
            _FORMAT, self._version, point.stamp.system_id, point.stamp.epoch.bytes, (point.at - _START) // _US,
            _hash(tenant, filters),
        )  # fmt: skip
        payload = head + text.encode("ascii")
        return base64.urlsafe_b64encode(payload + self._mac(self._version, payload)).decode().rstrip("=")

    def read(self, tenant: Tenant, filters: str, token: str) -> ResumePoint:
        """Where a stream with these filters goes on. RESYNC_REQUIRED where the token is none of ours, or of another."""
        try:
            raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except (Base64Error, ValueError):
            raise resync(Why.UNREADABLE) from None
        payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(payload) <= _HEAD.size or payload[0] != _FORMAT or payload[1] not in self._keys:
            raise resync(Why.UNREADABLE)
        if not hmac.compare_digest(self._mac(payload[1], payload), mac):
            raise resync(Why.UNREADABLE)
        _, _, system_id, epoch, at_us, filters_hash = _HEAD.unpack_from(payload)
        if filters_hash != _hash(tenant, filters):
            raise resync(Why.FILTER)
        snapshot = Snapshot.parse(payload[_HEAD.size :].decode("ascii"))
        return ResumePoint(Stamp(system_id, UUID(bytes=epoch), snapshot), _START + at_us * _US)

    def _mac(self, version: int, payload: bytes) -> bytes:
        return hashlib.blake2b(payload, key=self._keys[version], digest_size=_MAC_BYTES).digest()


def _hash(tenant: Tenant, filters: str) -> bytes:
    return hashlib.blake2b(f"{tenant.account_id}|{tenant.mode}|{filters}".encode(), digest_size=8).digest()
