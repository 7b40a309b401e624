"""Opaque page tokens: the last id of a page and a hash of the query, under a MAC. A token grants nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
from binascii import Error as Base64Error

from shared.crypto.root_secret import Purpose, RootSecret
from shared.errors import DomainError, Reason
from shared.tenancy import Tenant

_MAC_BYTES = 16
_QUERY_BYTES = 8


class PageTokens:
    """Makes and checks the page tokens of every list."""

    def __init__(self, root: RootSecret) -> None:
        self._keys = {v: root.derive(Purpose.PAGE_TOKEN, v) for v in root.live_versions}
        self._current = root.current

    def make(self, tenant: Tenant, query: str, last_id: str) -> str:
        """The token of the page after `last_id` of `query` (the list's name and its filters)."""
        payload = bytes((self._current,)) + self._query_hash(tenant, query) + last_id.encode()
        return base64.urlsafe_b64encode(payload + self._mac(self._current, payload)).decode().rstrip("=")

    def read(self, tenant: Tenant, query: str, token: str) -> str:
        """The id to go on after; empty for the first page. PAGE_TOKEN_INVALID when damaged or of another query."""
        if not token:
            return ""
        try:
            raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except (Base64Error, ValueError):
            raise _invalid() from None
        payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(payload) <= 1 + _QUERY_BYTES or payload[0] not in self._keys:
            raise _invalid()
        if not hmac.compare_digest(mac, self._mac(payload[0], payload)):
            raise _invalid()
        if payload[1 : 1 + _QUERY_BYTES] != self._query_hash(tenant, query):
            raise _invalid()
        return payload[1 + _QUERY_BYTES :].decode()

    def _mac(self, version: int, payload: bytes) -> bytes:
        return hashlib.blake2b(payload, key=self._keys[version], digest_size=_MAC_BYTES).digest()

    def _query_hash(self, tenant: Tenant, query: str) -> bytes:
        text = f"{tenant.account_id}|{tenant.mode}|{query}"
        return hashlib.blake2b(text.encode(), digest_size=_QUERY_BYTES).digest()


def _invalid() -> DomainError:
    return DomainError(Reason.PAGE_TOKEN_INVALID, "the page_token is damaged or belongs to a list with other filters")
