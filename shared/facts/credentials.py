"""Who a credential stands for, by the facts of one load."""

from __future__ import annotations

from typing import Final

from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.crypto.hashing import SecretHasher
from shared.db.pool import Database
from shared.errors import DomainError, Reason
from shared.rules import spiffe
from shared.tenancy import OPERATOR_SCOPES, Mode, Principal, PrincipalKind

API_KEY_LOAD: Final = """
    SELECT k.account_id, k.mode, k.api_key_id, k.scopes, k.expires_at
      FROM license.api_key_facts($1) AS k CROSS JOIN LATERAL license.account_facts(k.account_id) AS a
     WHERE NOT k.revoked AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()) AND a.status = 'active'
"""
OPERATOR_KEY_LOAD: Final = "SELECT k.operator_key_id FROM license.operator_key_facts($1) AS k WHERE NOT k.revoked"
# The paths in the parameter are those of the patterns that cover the caller's. The function's own column has the
# database's collation, with which no index on the table's would serve.
WORKLOAD_LOAD: Final = """
    SELECT w.account_id, w.mode, w.workload_binding_id, w.path, w.scopes
      FROM license.workload_facts($1) AS w CROSS JOIN LATERAL license.account_facts(w.account_id) AS a
     WHERE w.path COLLATE "C" = ANY ($2) AND a.status = 'active'
"""


class FactsAuthenticator:
    """Authenticates `Bearer` keys, and callers with certificates and no key, against the record, as `lictor_facts`."""

    def __init__(self, facts: Database, hasher: SecretHasher) -> None:
        self._facts = facts
        self._hasher = hasher

    async def authenticate(self, authorization: str | None, peer_identity: str) -> Principal:
        """The principal of a credential. CREDENTIALS_INVALID says the same of every bad one."""
        if authorization is None:
            return await self._workload(peer_identity)
        scheme, _, key = authorization.partition(" ")
        prefix = api_keys.parse(key) if scheme.lower() == "bearer" else None
        match prefix:
            case None:
                raise _invalid()
            case KeyPrefix.OPERATOR:
                return await self._operator(key)
            case KeyPrefix.SECRET_LIVE:
                return await self._secret(key, Mode.LIVE)
            case KeyPrefix.SECRET_TEST:
                return await self._secret(key, Mode.TEST)

    async def _operator(self, key: str) -> Principal:
        rows = await self._facts.load(OPERATOR_KEY_LOAD, self._hasher.candidates(key))
        if not rows:
            raise _invalid()
        return Principal(PrincipalKind.OPERATOR, "", None, rows[0]["operator_key_id"], OPERATOR_SCOPES, None)

    async def _secret(self, key: str, mode: Mode) -> Principal:
        rows = await self._facts.load(API_KEY_LOAD, self._hasher.candidates(key))
        if not rows or rows[0]["mode"] != mode.value:
            raise _invalid()
        row = rows[0]
        scopes = frozenset[str](row["scopes"])
        return Principal(
            PrincipalKind.SECRET_KEY, row["account_id"], mode, row["api_key_id"], scopes, row["expires_at"]
        )

    async def _workload(self, peer_identity: str) -> Principal:
        spiffe_id = spiffe.parse_id(peer_identity)
        if spiffe_id is None:
            raise _invalid()
        paths = spiffe_id.covering_paths()
        rows = await self._facts.load(WORKLOAD_LOAD, spiffe_id.trust_domain, list(paths))
        if not rows:
            raise _invalid()
        row = min(rows, key=lambda found: paths.index(found["path"]))
        scopes = frozenset[str](row["scopes"])
        mode = Mode(row["mode"])
        return Principal(PrincipalKind.WORKLOAD, row["account_id"], mode, row["workload_binding_id"], scopes, None)


def _invalid() -> DomainError:
    return DomainError(
        Reason.CREDENTIALS_INVALID,
        "the credential is absent, malformed, unknown, expired or revoked; "
        "send `authorization: Bearer <key>`, or come with a client certificate that a workload binding covers",
    )
