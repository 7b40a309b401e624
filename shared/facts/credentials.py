"""Who a credential stands for, by the facts of one load.

No secret is compared here: a credential is looked up by its keyed hash, and how long that takes tells nothing of others.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from shared.crypto import api_keys
from shared.crypto.api_keys import KeyPrefix
from shared.crypto.hashing import SecretHasher
from shared.db.pool import Database
from shared.errors import DomainError, Reason
from shared.rules import license_keys, spiffe
from shared.tenancy import OPERATOR_SCOPES, PUBLISHABLE_SCOPES, Mode, Principal, PrincipalKind

_COLUMNS: Final = "SELECT k.account_id, k.mode, k.kind, k.api_key_id, k.scopes, a.limits"
_KEYS: Final = " FROM license.api_key_facts($1) AS k CROSS JOIN LATERAL license.account_facts(k.account_id) AS a"
_WORKS: Final = (
    " WHERE NOT k.revoked AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()) AND a.status = 'active'"
)
API_KEY_LOAD: Final = _COLUMNS + ", k.expires_at" + _KEYS + _WORKS
LICENSE_KEY_LOAD: Final = (
    _COLUMNS
    + ", least(k.expires_at, l.expires_at) AS expires_at, f.license_id, p.authentication"
    + _KEYS
    + " CROSS JOIN LATERAL license.license_key_facts(k.account_id, k.mode, $2) AS l"
    + " CROSS JOIN LATERAL license.license_facts(k.account_id, k.mode, l.license_id) AS f"
    + " CROSS JOIN LATERAL license.policy_facts(k.account_id, k.mode, f.policy_id) AS p"
    + _WORKS
    + " AND (l.expires_at IS NULL OR l.expires_at > clock_timestamp())"
)
OPERATOR_KEY_LOAD: Final = "SELECT k.operator_key_id FROM license.operator_key_facts($1) AS k WHERE NOT k.revoked"
CUSTOMER_SESSION_LOAD: Final = """
    SELECT s.account_id, s.mode, s.customer_session_id, s.customer_id, s.expires_at, a.limits
      FROM license.customer_session_facts($1) AS s CROSS JOIN LATERAL license.account_facts(s.account_id) AS a
           CROSS JOIN LATERAL license.customer_facts(s.account_id, s.mode, s.customer_id) AS c
     WHERE s.expires_at > clock_timestamp() AND a.status = 'active' AND NOT c.banned
"""
_BY_LICENSE_KEY: Final = ("LICENSE", "MIXED")
_PUBLISHABLE: Final = (KeyPrefix.PUBLISHABLE_LIVE, KeyPrefix.PUBLISHABLE_TEST)
# The paths in the parameter are those of the patterns that cover the caller's. The function's own column has the
# database's collation, with which no index on the table's would serve.
WORKLOAD_LOAD: Final = """
    SELECT w.account_id, w.mode, w.workload_binding_id, w.path, w.scopes, a.limits
      FROM license.workload_facts($1) AS w CROSS JOIN LATERAL license.account_facts(w.account_id) AS a
     WHERE w.path COLLATE "C" = ANY ($2) AND a.status = 'active'
"""


class FactsAuthenticator:
    """Authenticates keys, sessions, and callers with certificates and no key, against the record, as `lictor_facts`."""

    def __init__(self, facts: Database, hasher: SecretHasher) -> None:
        self._facts = facts
        self._hasher = hasher

    async def authenticate(self, authorization: str | None, peer_identity: str) -> Principal:
        """The principal of a credential. CREDENTIALS_INVALID says the same of every bad one; CALLER_NOT_ALLOWED is for a
        license key that is a good one, of a policy that lets none be a credential."""
        if authorization is None:
            return await self._workload(peer_identity)
        scheme, _, credential = authorization.partition(" ")
        match scheme.lower():
            case "bearer":
                return await self._bearer(credential)
            case "license":
                return await self._license(credential)
            case _:
                raise invalid()

    async def _bearer(self, key: str) -> Principal:
        prefix = api_keys.parse(key)
        match prefix:
            case None:
                raise invalid()
            case KeyPrefix.OPERATOR:
                return await self._operator(key)
            case KeyPrefix.SECRET_LIVE | KeyPrefix.SECRET_TEST:
                return await self._api_key(key, PrincipalKind.SECRET_KEY, api_keys.mode_of(prefix))
            case KeyPrefix.PUBLISHABLE_LIVE | KeyPrefix.PUBLISHABLE_TEST:
                return await self._api_key(key, PrincipalKind.PUBLISHABLE_KEY, api_keys.mode_of(prefix))
            case KeyPrefix.SESSION_LIVE | KeyPrefix.SESSION_TEST:
                return await self._session(key, api_keys.mode_of(prefix))

    async def _operator(self, key: str) -> Principal:
        rows = await self._facts.load(OPERATOR_KEY_LOAD, self._hasher.candidates(key))
        if not rows:
            raise invalid()
        return Principal(PrincipalKind.OPERATOR, "", None, rows[0]["operator_key_id"], OPERATOR_SCOPES, None)

    async def _api_key(self, key: str, kind: PrincipalKind, mode: Mode) -> Principal:
        rows = await self._facts.load(API_KEY_LOAD, self._hasher.candidates(key))
        if not rows:
            raise invalid()
        return _principal(rows[0], kind, mode)

    async def _license(self, pair: str) -> Principal:
        """`<pk_ key>:<license key>`: a publishable key has no colon, a license key may have some."""
        key, _, license_key = pair.partition(":")
        prefix = api_keys.parse(key)
        if prefix is None or prefix not in _PUBLISHABLE or not 1 <= len(license_key) <= license_keys.MAX_CHARS:
            raise invalid()
        hashes = self._hasher.candidates(license_keys.canonical(license_key))
        rows = await self._facts.load(LICENSE_KEY_LOAD, self._hasher.candidates(key), hashes)
        if not rows:
            raise invalid()
        principal = _principal(rows[0], PrincipalKind.LICENSE_KEY, api_keys.mode_of(prefix), rows[0]["license_id"])
        if rows[0]["authentication"] not in _BY_LICENSE_KEY:
            raise DomainError(
                Reason.CALLER_NOT_ALLOWED,
                f"the license's policy has the authentication {rows[0]['authentication']}: its license key is no credential",
                metadata={"caller": principal.kind.value},
            )
        return principal

    async def _session(self, token: str, mode: Mode) -> Principal:
        rows = await self._facts.load(CUSTOMER_SESSION_LOAD, self._hasher.candidates(token))
        if not rows or rows[0]["mode"] != mode.value:
            raise invalid()
        row = rows[0]
        return Principal(
            PrincipalKind.CUSTOMER_SESSION, row["account_id"], mode, row["customer_session_id"], frozenset(),
            row["expires_at"], row["limits"], customer_id=row["customer_id"],
        )  # fmt: skip

    async def _workload(self, peer_identity: str) -> Principal:
        spiffe_id = spiffe.parse_id(peer_identity)
        if spiffe_id is None:
            raise invalid()
        paths = spiffe_id.covering_paths()
        rows = await self._facts.load(WORKLOAD_LOAD, spiffe_id.trust_domain, list(paths))
        if not rows:
            raise invalid()
        row = min(rows, key=lambda found: paths.index(found["path"]))
        scopes = frozenset[str](row["scopes"])
        mode = Mode(row["mode"])
        return Principal(
            PrincipalKind.WORKLOAD,
            row["account_id"],
            mode,
            row["workload_binding_id"],
            scopes,
            None,
            row["limits"],
        )


def _principal(row: asyncpg.Record, kind: PrincipalKind, mode: Mode, license_id: str = "") -> Principal:
    """Of an API key's row, which must be what the key says of itself."""
    secret = kind is PrincipalKind.SECRET_KEY
    if (row["mode"], row["kind"]) != (mode.value, "SECRET" if secret else "PUBLISHABLE"):
        raise invalid()
    scopes = frozenset[str](row["scopes"])
    held = scopes if secret else scopes & PUBLISHABLE_SCOPES
    return Principal(
        kind, row["account_id"], mode, row["api_key_id"], held, row["expires_at"], row["limits"], license_id
    )


def invalid() -> DomainError:
    """CREDENTIALS_INVALID, which says the same of every bad credential."""
    return DomainError(
        Reason.CREDENTIALS_INVALID,
        "the credential is absent, malformed, unknown, expired or revoked; "
        "send `authorization: Bearer <key>`, or come with a client certificate that a workload binding covers",
    )
